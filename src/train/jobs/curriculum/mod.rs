//! The curriculum: stages of AF2, in order, each from what it names, else from what the one before wrote.

pub mod batch;
pub mod encoded;
mod source;
pub mod stage;
mod texts;

pub use stage::Stage;
pub(super) use texts::Texts;

use super::{begin, same};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::{self, Loaded};
use crate::model::flamingo::Flamingo;
use crate::preflight::{self, Begin};
use crate::recipe::{Recipe, StageRecipe};
use crate::train::engine::finite;
use crate::train::engine::resume::{self, Task};
use crate::train::engine::signals::Signals;
use crate::train::verify::{self, Part};
use crate::train::{train, Resume, Run};
use source::StageSource;
use std::path::{Path, PathBuf};
use tch::Device;

/// Runs every stage of the recipe that is not done.
pub(super) fn run(run: Run, signals: &Signals, device: Device, resume: &Resume) -> Result<()> {
    let Run { recipe, ranks } = run;
    recipe.ready(ranks.world)?;
    let ears = begin::ears(recipe, ranks)?;
    let first = first_stage(recipe, resume)?;
    let mut left = Vec::new();
    for (i, stage) in recipe.stages.iter().enumerate().skip(first) {
        let place = Place::of(recipe, stage);
        let opens = || crate::checkpoint::open_released(&place.folder).map(|_| ());
        if *resume != Resume::Auto || !place.task().is_done(ranks, opens)? {
            left.push(i);
        }
    }
    begin::look(preflight::training(recipe, &left, ranks.world), ranks)?;
    for (n, i) in left.iter().copied().enumerate() {
        let recipe_of = &recipe.stages[i];
        // A file is gone on from in its own stage only.
        let resume = match resume {
            Resume::From(_) if i > first => &Resume::No,
            resume => resume,
        };
        let model = start(recipe, i, ranks, device)?;
        let texts = match n {
            0 => look_at_texts(recipe, &left, &model, ranks)?,
            _ => None,
        };
        let place = Place::of(recipe, recipe_of);
        let stage = Stage::new(&model, recipe_of, &recipe.train);
        let source = StageSource {
            recipe,
            stage: &stage,
            ears: &ears,
            ranks,
            texts,
        };
        train(run, signals, &stage, &place.task(), &source, resume)?;
        let folder = place.folder.display().to_string();
        finite::check(&folder, place.task().section, &model.params)?;
        if ranks.first() {
            load::save(&place.folder, &model)?;
            place.task().done()?;
        }
        // The next stage begins with what this one wrote.
        ranks.barrier()?;
    }
    Ok(())
}

/// A few steps of each stage, from the model of the first, once without a break and once from a checkpoint.
pub(super) fn verify(run: Run, device: Device) -> Result<()> {
    let Run { recipe, ranks } = run;
    recipe.ready(ranks.world)?;
    begin::look(
        preflight::training(recipe, &preflight::all(recipe), ranks.world),
        ranks,
    )?;
    let ears = begin::ears(recipe, ranks)?;
    for stage in &recipe.stages {
        // A few steps do not want the features of all clips.
        let stage = &StageRecipe {
            cache_features: false,
            ..stage.clone()
        };
        verify::twice(run, &stage.name, device, &mut |part: &Part| {
            let model = start(recipe, 0, ranks, device)?;
            let stage = Stage::new(&model, stage, &recipe.train);
            let source = StageSource {
                recipe,
                stage: &stage,
                ears: &ears,
                ranks,
                texts: None,
            };
            part.run(run, &stage, &source)
        })?;
    }
    Ok(())
}

/// A stage's names and folder.
struct Place<'a> {
    recipe: &'a Recipe,
    stage: &'a StageRecipe,
    section: String,
    folder: PathBuf,
}

impl<'a> Place<'a> {
    fn of(recipe: &'a Recipe, stage: &'a StageRecipe) -> Self {
        Place {
            recipe,
            stage,
            section: format!("stages.{}", stage.name),
            folder: recipe.stage_folder(&stage.name),
        }
    }

    fn task(&self) -> Task<'_> {
        Task {
            recipe: &self.recipe.name,
            name: &self.stage.name,
            section: &self.section,
            folder: &self.folder,
            steps: self.stage.optim.steps,
        }
    }
}

/// The stage that a run begins with.
///
/// # Errors
/// A file that is no checkpoint, or of a stage that the recipe does not have.
fn first_stage(recipe: &Recipe, resume: &Resume) -> Result<usize> {
    let Resume::From(path) = resume else {
        return Ok(0);
    };
    let path: &Path = path;
    let Some(name) = resume::job_of(path)? else {
        return Ok(0);
    };
    let stage = recipe.stages.iter().position(|s| s.name == name);
    let names: Vec<&str> = recipe.stages.iter().map(|s| s.name.as_str()).collect();
    stage.ok_or_else(|| {
        let expected = format!("a stage of the recipe: {}", names.join(", "));
        Error::checkpoint(path, "af2.stage", expected, name)
    })
}

/// Says before the first step of all which items of the stages that are left teach nothing. Returns what the first rank found in
/// the first of them.
fn look_at_texts(recipe: &Recipe, left: &[usize], model: &Loaded, ranks: &Ranks) -> Result<Option<Texts>> {
    let look = || {
        let mut own = None;
        for (n, i) in left.iter().enumerate() {
            let texts = Texts::of(recipe, &recipe.stages[*i], &model.tokenizer)?;
            texts.tell()?;
            if n == 0 {
                own = Some(texts);
            }
        }
        Ok(own)
    };
    begin::by_the_first(ranks, "tells what is wrong with a stage's texts", look)
}

/// The model with which stage number `index` begins: the same on every rank.
pub(crate) fn start(recipe: &Recipe, index: usize, ranks: &Ranks, device: Device) -> Result<Loaded> {
    let options = load::Options::new(device);
    let begin = preflight::begin(recipe, index);
    // What a stage before has written holds copies of files that were told of then.
    let told = matches!(begin, Begin::Stage(_));
    let mut model = match begin {
        Begin::Recipe => load::start(&preflight::start(recipe), device)?,
        Begin::Stage(before) => load::open(&recipe.stage_folder(&before.name), &options)?,
        Begin::Path(path) => load::open_parts(&preflight::parts(recipe, path), &options)?,
    };
    for note in model.notes.iter().filter(|_| ranks.first() && !told) {
        crate::say!("note: {note}");
    }
    model.tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
    follow(recipe, &mut model.model, ranks);
    if ranks.many() {
        ranks.agree(
            &format!("{}: its model", recipe.stages[index].name),
            &same::flamingo(&model)?,
        )?;
    }
    begin::given_by_the_first(&model.params, device, ranks)?;
    Ok(model)
}

/// What a recipe says of a model and its checkpoint does not, or says otherwise: rules that have no weights.
fn follow(recipe: &Recipe, model: &mut Flamingo, ranks: &Ranks) {
    if let Some(own) = &recipe.model.audio_transformer {
        model.config.audio_transformer.attention_dropout = own.attention_dropout;
    }
    if let Some(own) = &recipe.model.cross_attention {
        let rule = &mut model.config.cross_attention;
        if rule.frames != own.frames && ranks.first() {
            crate::say!(
                "note: model.cross_attention.frames: {}, as the recipe says; the checkpoint itself asks for {}",
                own.frames, rule.frames
            );
        }
        (rule.frames, rule.max_window_per_audio) = (own.frames, own.max_window_per_audio);
    }
}

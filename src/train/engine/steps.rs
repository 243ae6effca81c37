//! Optimizer steps: micro-steps, gradients over the ranks, clipping, the update. Nothing in here waits for the device.

use super::clock::{Clock, Phase};
use super::random;
use super::schedule::learning_rate;
use crate::data::order::Cursor;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::ffi::{c10d::Reducer, kernels};
use crate::model::params::Role;
use crate::optim::{groups, not_finite, Optimizer};
use crate::recipe::{ClipAt, LossMean, TrainRecipe};
use crate::train::job::{Batch, Job};
use std::collections::HashMap;
use std::rc::Rc;
use tch::{no_grad, Kind, Tensor};

/// The state of a job while it trains. Public, so that golden tests drive the same code.
pub struct Steps<'a, J: Job> {
    /// What is trained.
    pub job: &'a J,
    /// How.
    pub train: TrainRecipe,
    /// The ranks that train it together.
    pub ranks: Rc<Ranks>,
    /// Moves the weights.
    pub optimizer: Optimizer,
    /// Averages gradients over the ranks, where there are several; see [`Steps::meet`].
    reducer: Option<Reducer>,
    /// Weights that got no gradient then: none may get one later, as nobody would average it.
    left_out: Vec<(String, Tensor)>,
    /// Micro-steps of each optimizer step, and how many of the one in work are done.
    pub micro_steps: usize,
    micro: usize,
    /// The step ends with the next micro-step even where it has had fewer than the others.
    pub ends: bool,
    /// What counts of this step on this rank.
    counted: f64,
    /// The gradient's norm at the last micro-step's clipping.
    clipped_norm: Option<Tensor>,
    /// What a rank without items computes on, where there are others.
    silence: Option<Batch<J::Input>>,
    /// Where the time goes.
    pub clock: Clock,
    /// What the step in work changes before it is whole.
    pub(super) whole: Option<Whole>,
    /// Optimizer steps made.
    pub done: usize,
    /// Where the data is behind the last batch.
    pub cursor: Cursor,
    /// What the job is made with, for its checkpoints: see `Source::made_with`.
    pub made_with: String,
}

/// Where things were after the last whole step: what is saved where the next is never made.
pub(crate) struct Whole {
    pub cursor: Cursor,
    pub random: Vec<Tensor>,
    /// Running averages, where the job moves them.
    pub buffers: Vec<(String, Tensor)>,
}

/// What a micro-step leaves, still on the device.
pub struct MicroStep {
    /// Mean loss over what counts in the batch.
    pub loss: Tensor,
    /// What counts in the batch: [`Batch::counted`].
    pub counted: usize,
    /// Norm of the gradients accumulated so far, before clipping; 0 where the step as a whole is clipped.
    pub grad_norm: Tensor,
}

/// What a step leaves: its tensors are still on the device.
pub struct Stepped {
    /// The schedule's, which a group's own rate multiplies.
    pub learning_rate: f64,
    /// Micro-steps that it was made of.
    pub micro_steps: usize,
    /// Whether any rank had something that counts. Where none had, the step was skipped.
    pub counted: bool,
    /// Norm of the whole gradient, before clipping.
    pub grad_norm: Tensor,
    /// The same by part, where it was asked for.
    pub by_part: Vec<(&'static str, Tensor)>,
    /// 1 where the step was skipped, as its gradient is not finite or nothing counted.
    pub skipped: Tensor,
}

impl<'a, J: Job> Steps<'a, J> {
    /// Gives what trains of the job to an optimizer.
    ///
    /// # Errors
    /// A batch that the ranks cannot share; a pattern of a group that is none.
    pub fn new(job: &'a J, train: &TrainRecipe, ranks: &Rc<Ranks>) -> Result<Self> {
        let optim = job.optim();
        let groups = groups(
            job.params().trainable(),
            optim.weight_decay,
            optim.betas,
            |name, weight| job.decays(name, weight),
            &optim.splits()?,
        );
        let mut optimizer = Optimizer::new(optim.optimizer, groups);
        if train.zero && ranks.many() {
            optimizer.shard(ranks.rank, ranks.world);
        }
        Ok(Steps {
            job,
            micro_steps: optim.split(ranks.world)?.1,
            train: train.clone(),
            ranks: ranks.clone(),
            optimizer,
            reducer: None,
            left_out: Vec::new(),
            micro: 0,
            ends: false,
            counted: 0.0,
            clipped_norm: None,
            silence: None,
            clock: Clock::new(job.device()),
            whole: None,
            done: 0,
            cursor: Cursor::default(),
            made_with: String::new(),
        })
    }

    /// Where there are several ranks, before the first step: a backward pass over silence shows which weights get gradients, on
    /// which all must agree; a second one shows the Reducer in which order they come, so that a run that is resumed adds them
    /// up in the same buckets as one that was never interrupted. Nothing that training goes by is left changed.
    ///
    /// # Errors
    /// Ranks whose models differ.
    pub fn meet(&mut self) -> Result<()> {
        if !self.ranks.many() {
            return Ok(());
        }
        let ranks = self.ranks.clone();
        let _guarded = ranks.guarded();
        let before = self.now()?;
        let silence = self.job.silence()?;
        self.backward(&silence, 0.0)?;
        let all: Vec<(String, Tensor)> = self
            .optimizer
            .params()
            .map(|(n, p)| (n.clone(), p.shallow_clone()))
            .collect();
        let has = |p: &Tensor| f64::from(u8::from(p.grad().defined()));
        let own: Vec<f64> = all.iter().map(|(_, p)| has(p)).collect();
        let mut somewhere = own.clone();
        self.ranks.max(&mut somewhere)?;
        if let Some(i) = (0..all.len()).find(|i| own[*i] != somewhere[*i]) {
            let rank = self.ranks.rank;
            return Err(fault(format!(
                "{}: no gradient on rank {rank}, but on others",
                all[i].0
            )));
        }
        let (used, left_out): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, p)| p.grad().defined());
        self.optimizer.zero_grad(false)?;
        self.reducer = self.ranks.reducer(&used, self.train.bucket_mib)?;
        self.left_out = left_out;
        if let Some(reducer) = &self.reducer {
            reducer.before_forward()?;
        }
        self.backward(&silence, 0.0)?;
        self.optimizer.zero_grad(true)?;
        self.silence = Some(silence);
        self.back_to(&before)?;
        ranks.settled(self.job.device())
    }

    /// A forward and backward pass whose gradients are reduced where there is a reducer; `counts` weighs the loss.
    fn backward(&self, batch: &Batch<J::Input>, counts: f64) -> Result<()> {
        let sum = self.job.loss_sum(&batch.input)?;
        if let Some(reducer) = &self.reducer {
            reducer.before_backward()?;
        }
        Ok((&sum * counts).f_backward()?)
    }

    /// Forward and backward pass of one batch; its gradients are added to those of the step.
    pub fn micro_step(&mut self, batch: &Batch<J::Input>) -> Result<MicroStep> {
        self.counted += batch.counted as f64;
        self.pass(batch, 1.0)
    }

    /// A micro-step of which this rank has no item: its part is nothing, but the others wait for it.
    pub fn empty_micro_step(&mut self) -> Result<()> {
        let Some(silence) = self.silence.take() else {
            self.micro += 1;
            return Ok(());
        };
        self.pass(&silence, 0.0)?;
        self.silence = Some(silence);
        Ok(())
    }

    fn pass(&mut self, batch: &Batch<J::Input>, counts: f64) -> Result<MicroStep> {
        if self.ranks.many() && self.reducer.is_none() {
            return Err(fault("a step before the ranks have met".into()));
        }
        let ranks = self.ranks.clone();
        let _guarded = ranks.guarded();
        self.micro += 1;
        // Gradients are averaged once, in the step's last backward pass; but clipping each micro-step needs all of them.
        let last = self.micro == self.micro_steps || self.ends;
        let reduces = last || self.job.clip_at() == ClipAt::MicroStep;
        let reducer = self.reducer.as_ref().filter(|_| reduces);
        if let Some(reducer) = reducer {
            reducer.before_forward()?;
        }
        let sum = self.job.loss_sum(&batch.input)?;
        let weight = match self.train.loss {
            LossMean::Tokens => counts,
            // Reference: an epoch's last step may have fewer micro-steps, and is divided by as many all the same. Where nothing
            // counts its mean is 0/0, and the run lost; here that micro-batch adds nothing.
            LossMean::MeanOfMeans => counts / (batch.counted.max(1) * self.micro_steps) as f64,
        };
        self.clock.after(Phase::Forward);
        if let Some(reducer) = reducer {
            reducer.before_backward()?;
        }
        (&sum * weight).f_backward()?;
        self.clock.after(Phase::Backward);
        self.job.mask();
        let grad_norm = match self.job.clip_at() {
            ClipAt::MicroStep => self.optimizer.clip(self.job.optim().clip)?,
            ClipAt::Step => self.optimizer.zero(),
        };
        self.clipped_norm = Some(grad_norm.shallow_clone());
        self.clock.after(Phase::Optimizer);
        Ok(MicroStep {
            loss: sum.detach() / batch.counted.max(1) as f64,
            counted: batch.counted,
            grad_norm,
        })
    }

    /// Moves the weights and forgets the gradients. `in_parts`: the gradient's norm by part is wanted.
    ///
    /// A step that is skipped changes nothing of the model and its optimizer. It is one of the job's steps all the same: the
    /// schedule and the data go on.
    pub fn step(&mut self, in_parts: bool) -> Result<Stepped> {
        if let Some((name, _)) = self.left_out.iter().find(|(_, p)| p.grad().defined()) {
            return Err(fault(format!(
                "{name}: a gradient at step {}, but none before the first",
                self.done
            )));
        }
        let ranks = self.ranks.clone();
        let _guarded = ranks.guarded();
        let mut all = [self.counted];
        self.ranks.sum(&mut all)?;
        self.clock.after(Phase::Reduce);
        let grads = self.optimizer.grads();
        // From the ranks' average of sums to the mean over what counts of all ranks and micro-steps.
        let scale = match self.train.loss {
            LossMean::Tokens => self.ranks.world as f64 / all[0].max(1.0),
            LossMean::MeanOfMeans => 1.0,
        };
        let by_part = match in_parts {
            true => self.norms(scale)?,
            false => Vec::new(),
        };
        let grad_norm = match self.job.clip_at() {
            ClipAt::MicroStep => self.clipped_norm.take().unwrap_or_else(|| self.optimizer.zero()),
            ClipAt::Step => {
                let norm = self.optimizer.norm(&grads)? * scale;
                let factor = ((&norm + 1e-6).reciprocal() * self.job.optim().clip).clamp_max(1.0) * scale;
                kernels::foreach_mul(&grads, &factor)?;
                norm
            }
        };
        let counted = all[0] > 0.0 || self.micro == 0;
        let skipped = match counted {
            true => not_finite(&grad_norm),
            false => Tensor::ones([0i64; 0], (Kind::Float, self.job.device())),
        };
        let rate = learning_rate(self.job.optim(), self.done);
        if counted {
            self.optimizer.step(rate, &skipped)?;
        }
        self.keep_buffers(&skipped);
        self.clock.after(Phase::Optimizer);
        self.share()?;
        self.clock.after(Phase::Reduce);
        drop(grads);
        self.optimizer.zero_grad(self.ranks.many())?;
        self.clock.after(Phase::Optimizer);
        let micro_steps = std::mem::take(&mut self.micro);
        (self.counted, self.ends) = (0.0, false);
        self.done += 1;
        self.remember()?;
        Ok(Stepped {
            learning_rate: rate,
            micro_steps,
            counted,
            grad_norm,
            by_part,
            skipped,
        })
    }

    /// Gives running averages back what they were before a step that was skipped. Nothing waits for the device to know.
    fn keep_buffers(&self, skipped: &Tensor) {
        let Some(whole) = &self.whole else { return };
        let then: HashMap<&str, &Tensor> = whole.buffers.iter().map(|(n, t)| (n.as_str(), t)).collect();
        for (name, mut now) in self.moving_buffers() {
            if let Some(then) = then.get(name.as_str()) {
                let skipped = skipped.to_device(now.device()).gt(0.5);
                no_grad(|| now.copy_(&then.where_self(&skipped, &now)));
            }
        }
    }

    /// Keeps what the next step changes before it is whole.
    pub fn remember(&mut self) -> Result<()> {
        self.ranks.step_queued(self.job.device())?;
        self.whole = Some(self.now()?);
        Ok(())
    }

    fn now(&self) -> Result<Whole> {
        Ok(Whole {
            cursor: self.cursor.clone(),
            random: random::now(self.job.device())?,
            buffers: self.moving_buffers().map(|(n, t)| (n, t.copy())).collect(),
        })
    }

    fn back_to(&self, then: &Whole) -> Result<()> {
        let now: HashMap<String, Tensor> = self.moving_buffers().collect();
        for (name, kept) in &then.buffers {
            if let Some(mut now) = now.get(name).map(Tensor::shallow_clone) {
                no_grad(|| now.copy_(kept));
            }
        }
        random::set(self.job.device(), &then.random)
    }

    /// Running averages, where the job moves them.
    pub fn moving_buffers(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let all = self.job.params().iter();
        all.filter(|(name, e)| e.role == Role::Buffer && self.job.moves(name))
            .map(|(name, e)| (name.to_owned(), e.tensor.detach()))
    }

    /// ZeRO: every rank gives the others the weights that it has moved.
    fn share(&self) -> Result<()> {
        let Some(owners) = self.optimizer.owners() else {
            return Ok(());
        };
        let all: Vec<Tensor> = self.optimizer.params().map(|(_, p)| p.detach()).collect();
        for owner in 0..self.ranks.world {
            let own = all.iter().zip(&owners).filter(|(_, o)| **o == owner);
            let own: Vec<Tensor> = own.map(|(p, _)| p.shallow_clone()).collect();
            self.ranks.broadcast(&own, owner)?;
        }
        Ok(())
    }

    fn norms(&self, scale: f64) -> Result<Vec<(&'static str, Tensor)>> {
        let mut parts: Vec<(&'static str, Vec<Tensor>)> = Vec::new();
        for (name, p) in self.optimizer.params() {
            let (part, grad) = (self.job.part(name), p.grad());
            if !grad.defined() {
                continue;
            }
            match parts.iter_mut().find(|(p, _)| *p == part) {
                Some((_, grads)) => grads.push(grad),
                None => parts.push((part, vec![grad])),
            }
        }
        let norms = parts
            .iter()
            .map(|(part, grads)| Ok((*part, no_grad(|| self.optimizer.norm(grads))? * scale)));
        norms.collect()
    }
}

fn fault(message: String) -> Error {
    Error::Training {
        message,
        hint: Some("this is a fault of af2: please report it with the recipe".into()),
    }
}

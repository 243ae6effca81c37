//! Benchmarks as cards: what is asked, of which files, how answers are read and scored, what others have reached, and how well
//! each of these facts is known. A card is data, a YAML file; nothing here knows a model.

mod card;
mod check;
mod diff;
mod embedded;
mod fault;
pub(crate) mod import;
pub mod names;
pub(crate) mod numbers;
mod page;
mod protocol;
mod registry;
pub(crate) mod table;
pub(crate) mod wording;

pub use card::{
    Card, Categories, Citation, Constant, Decoding, Defect, Fact, Judge, Labels, Number, Numbers,
    OfficialFile, PaperRow, Prompt, Rules, Skill, Split,
};
pub use diff::{differences, Difference};
pub use page::page;
pub use protocol::{Aggregate, Criterion, Field, ItemMark, MarkScale, Only, Piece, Protocol};
pub use registry::{parse, read, Entry, Registry};

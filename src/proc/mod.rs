//! What Linux says in `/proc` of this process: what is mounted for it, and which control groups it is in.

pub(crate) mod groups;
pub(crate) mod mounts;

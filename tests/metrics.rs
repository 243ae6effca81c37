#![allow(clippy::panic, clippy::unwrap_used)]

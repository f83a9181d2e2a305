//! What is known of the nodes: what each has said of itself, how far behind it is, and the view that decisions read.

pub mod cause;
pub mod delay;
pub mod discovery;
pub mod election;
pub mod host;
pub mod lag;
pub mod members;
pub mod node;
pub mod observation;
pub mod proof;
pub mod rights;
pub mod sentinel;
pub mod trouble;
pub mod view;
pub mod zones;

//! What the configuration says of a Redis Cluster.

use crate::core::address::Address;

/// `[upstream.cluster]`: the servers are a Redis Cluster, whose nodes tell which others there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `addresses`: some of its nodes; never empty.
    pub addresses: Vec<Address>,
    /// `split-writes`: whether `MSET` of several slots is split, though it is atomic on one server.
    pub split_writes: bool,
    /// `keyless-scripts`
    pub keyless_scripts: KeylessScripts,
    /// `present-as`
    pub present_as: PresentAs,
}

/// What clients take Redweir for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PresentAs {
    /// One server, that is in no cluster.
    #[default]
    Standalone,
    /// A cluster of one node, which has all slots: clients that know nothing else than clusters find their way.
    Cluster,
}

impl PresentAs {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::Standalone, Self::Cluster];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
        }
    }
}

/// What becomes of a script that names no keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeylessScripts {
    /// It is refused: it may read whatever key it likes, and each primary has only some.
    #[default]
    Refuse,
    /// Some primary runs it.
    Any,
}

impl KeylessScripts {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Any];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Any => "any",
        }
    }
}

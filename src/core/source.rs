//! Where Redweir follows the replication stream.

/// `source` of `[stream]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum StreamSource {
    /// The freshest replica that can serve it; the primary when none can and that costs its writers nothing.
    #[default]
    Auto,
    /// The primary.
    Primary,
    /// A replica, never the primary.
    Replica,
    /// Nowhere.
    Off,
}

impl StreamSource {
    /// All choices.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Primary, Self::Replica, Self::Off];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Off => "off",
        }
    }
}

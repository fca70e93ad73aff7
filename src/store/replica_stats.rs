//! Statistics of a store with replicas.

/// Where the reads of a store with replicas went, and how the replicas are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaStats {
    /// Reads from the primary.
    pub primary_reads: u64,
    /// The replicas, in the order of the setting.
    pub replicas: Vec<ReplicaFigures>,
}

/// Figures of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaFigures {
    /// Server and database, without user and password.
    pub name: String,
    /// Whether reads may go to it.
    pub up: bool,
    /// Versions of the chain that it was behind the primary when both were last asked.
    pub behind: u64,
    /// Reads from it.
    pub reads: u64,
}

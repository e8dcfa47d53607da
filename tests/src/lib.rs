//! What the black-box tests need: real servers, the real binary, and the judges.
//!
//! * [`require`]: what a test needs and the machine lacks is said by name, never passed over in silence.
//! * [`postgres`], [`s3`], [`kafka`], [`clients`]: real servers and clients, found or installed.
//! * [`process`]: the `aqueduct` binary, started, killed and restarted.
//! * [`rest`], [`topic`], [`guest`]: what a user does to it, and plug-ins that misbehave.
//! * [`compat`]: other clients' own tests, against the binary and against Apache Kafka.
//! * [`checker`] and [`workload`]: the judge of change data capture.
//! * [`powerloss`]: the judge of durability; `kill -9` alone keeps the page cache and proves little.
//!
//! **Invariant:** nothing here is used by the product.

pub mod bench;
pub mod capture;
pub mod checker;
pub mod clients;
pub mod compat;
pub mod guest;
pub mod kafka;
pub mod lake;
pub mod ledger;
pub mod limit;
pub mod postgres;
pub mod powerloss;
pub mod process;
pub mod raw;
pub mod require;
pub mod rest;
pub mod s3;
pub mod topic;
pub mod usage;
pub mod workload;

//! Why a request to the runtime failed; REST maps each to one status code.

use aqueduct_core::config::Problem;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such connector, task or plugin (404).
    #[error("{0}")]
    NotFound(String),
    /// There is one of that name (409).
    #[error("Connector {0} already exists")]
    AlreadyExists(String),
    /// The config is wrong (400): every problem, each with its key.
    #[error("{}", invalid(.0))]
    Invalid(Vec<Problem>),
    /// The request is wrong (400).
    #[error("{0}")]
    BadRequest(String),
    /// The runtime is stopping (503).
    #[error("the worker is stopping")]
    Stopping,
    /// Anything else (500), such as a log that cannot be reached.
    #[error("{}", .0.full())]
    Failed(#[from] aqueduct_core::Error),
}

fn invalid(problems: &[Problem]) -> String {
    let lines: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    format!(
        "Connector configuration is invalid and contains the following {} error(s):\n{}\nYou can also find the above \
         list of errors at the endpoint `/connector-plugins/{{connectorType}}/config/validate`",
        problems.len(),
        lines.join("\n")
    )
}

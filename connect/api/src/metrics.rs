//! `/metrics`: the registries of broker and runtime as one page.

use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use crate::error::ApiError;

/// A registry of metrics.
#[derive(Clone)]
pub enum MetricsSource {
    /// Fixed once it is handed over.
    Fixed(Arc<Registry>),
    /// Still written to by its owner.
    Shared(Arc<parking_lot::Mutex<Registry>>),
}

/// Renders all of them in the OpenMetrics text format, with one end mark.
pub fn render<'a>(sources: impl IntoIterator<Item = &'a MetricsSource>) -> Result<String, ApiError> {
    let mut text = String::new();
    let failed =
        |error: std::fmt::Error| ApiError::internal(format!("the metrics cannot be rendered: {error}"));
    for source in sources {
        match source {
            MetricsSource::Fixed(registry) => encode_registry(&mut text, registry).map_err(failed)?,
            MetricsSource::Shared(registry) => {
                encode_registry(&mut text, &registry.lock()).map_err(failed)?
            }
        }
    }
    encode_eof(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn registries_become_one_page() {
        let registry = |name: &str| {
            let mut registry = Registry::default();
            let counter: Counter = Counter::default();
            counter.inc_by(7);
            registry.register(name, "help", counter);
            registry
        };
        let shared = MetricsSource::Shared(Arc::new(parking_lot::Mutex::new(registry("b"))));
        let page = render([&MetricsSource::Fixed(Arc::new(registry("a"))), &shared]).expect("renders");
        assert!(page.contains("a_total 7\n") && page.contains("b_total 7\n"), "{page}");
        assert_eq!(page.matches("# EOF").count(), 1);
    }
}

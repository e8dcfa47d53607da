//! The components of this binary. A new one is one line here.

use aqueduct_core::component::Registry;

/// Every connector and step.
pub(crate) fn registry() -> Registry {
    Registry::new()
        .source(aqueduct_connector_postgres::PostgresCdc::new())
        .source(aqueduct_connector_datagen::Datagen::new())
        .sink(aqueduct_connector_s3::S3Sink::new())
        .sink(aqueduct_connector_file::FileSink::new())
        .transform(aqueduct_transforms::Unwrap::new())
        .transform(aqueduct_transforms::Filter::new())
        .transform(aqueduct_transforms::Mask::new())
        .transform(aqueduct_plugin_host::WasmFactory::new())
}

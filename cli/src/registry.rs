//! The components of this binary. A new one is one line here.

use std::path::PathBuf;

use aqueduct_core::component::Registry;
use aqueduct_plugin_host::WasmFactory;

/// Every connector and step.
pub(crate) fn registry() -> Registry {
    Registry::new()
        .source(aqueduct_connector_postgres::PostgresCdc::new())
        .source(aqueduct_connector_datagen::Datagen)
        .source(aqueduct_connector_http::Webhook)
        .source(aqueduct_connector_file::FileSource)
        .sink(aqueduct_connector_s3::S3Sink)
        .sink(aqueduct_connector_file::FileSink)
        .sink(aqueduct_connector_http::HttpSink)
        .transform(aqueduct_transforms::Unwrap::new())
        .transform(aqueduct_transforms::Filter::new())
        .transform(aqueduct_transforms::Mask::new())
        .transforms_of(aqueduct_transforms::simple())
        .transform(wasm())
}

fn wasm() -> WasmFactory {
    let factory = WasmFactory::new();
    match code_cache() {
        Some(dir) => factory.with_cache(dir),
        None => factory,
    }
}

/// Where compiled plug-ins are kept: a directory of this user alone. Without a home directory they are not kept.
fn code_cache() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("aqueduct").join("plugins"))
}

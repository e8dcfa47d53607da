//! The log on standard error.
//!
//! **Invariant:** a line of the log never tears the live lines: both go through one [`Screen`].

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::args::{LogFormat, Logging};
use crate::failure::Failure;
use crate::screen::Screen;

/// Sets it up, once; `default` is the level without a flag.
pub(crate) fn init(logging: &Logging, default: &str, screen: &Arc<Screen>) -> Result<(), Failure> {
    let level = logging.log_level.as_deref().unwrap_or(default);
    // Consensus narrates every step; it is heard on request.
    let quiet = if level.contains("openraft") { level.to_owned() } else { format!("{level},openraft=warn") };
    let filter = EnvFilter::try_new(quiet).map_err(|error| {
        Failure::usage(format!("`--log-level {level}`: {error}; write `info` or `debug`"))
    })?;
    let writer = LogWriter(Arc::clone(screen));
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match logging.log_format {
        LogFormat::Text => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let ansi = io::stderr().is_terminal() && !refused;
            let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(writer)).try_init()
        }
    };
    installed.map_err(|error| Failure::failed(format!("cannot set up the log: {error}")))
}

struct LogWriter(Arc<Screen>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { screen: &self.0, text: Vec::new() }
    }
}

/// One event of the log, written as a whole when it is complete.
struct Line<'a> {
    screen: &'a Screen,
    text: Vec<u8>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.screen.log(&self.text);
    }
}

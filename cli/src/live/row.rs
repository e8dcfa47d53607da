//! One connector in one line.

use aqueduct_core::source::Progress;
use aqueduct_runtime::ConnectorView;
use serde_json::json;

/// Lines of equal columns, and a line for each piece of long work.
pub(super) fn lines(views: &[ConnectorView]) -> Vec<String> {
    views.iter().map(|view| line(view, width(views))).collect()
}

/// Of the longest name.
pub(super) fn width(views: &[ConnectorView]) -> usize {
    views.iter().map(|view| view.name.len()).max().unwrap_or(0)
}

/// A line; the name is filled up to `width`.
pub(super) fn line(view: &ConnectorView, width: usize) -> String {
    let mut line = format!(
        "{:<width$}  {:<10} {:>12} records {:>9}/s",
        view.name,
        view.state.name(),
        grouped(view.records),
        grouped(view.rate.round() as u64),
    );
    if let Some(lag) = &view.lag {
        line.push_str(&format!("  lag {} {}", grouped(lag.amount), lag.unit));
    }
    line.push_str(&format!("  errors {}", grouped(view.errors)));
    if view.dead_letters > 0 {
        line.push_str(&format!("  dead letters {}", grouped(view.dead_letters)));
    }
    if view.restarts > 0 {
        line.push_str(&format!("  restarts {}", grouped(view.restarts)));
    }
    for progress in &view.progress {
        line.push_str(&format!("  {}", progressed(progress, view.rate)));
    }
    if let Some(error) = &view.last_error {
        let first: String = error.lines().next().unwrap_or_default().chars().take(160).collect();
        line.push_str(&format!("  last error: {first}"));
    }
    if let Some(warning) = &view.retention_warning {
        line.push_str(&format!("  warning: {warning}"));
    }
    line
}

/// Done, estimated total, and the time left at the present rate.
fn progressed(progress: &Progress, rate: f64) -> String {
    let done = grouped(progress.done);
    let Some(total) = progress.total.filter(|total| *total > 0) else {
        return format!("{}: {done} done", progress.what);
    };
    // The total is an estimate and may turn out too small.
    let percent = (progress.done.saturating_mul(100) / total).min(99);
    let left = total.saturating_sub(progress.done);
    let time = if rate >= 1.0 { format!(", {} left", span(left as f64 / rate)) } else { String::new() };
    format!("{}: {done} of about {} ({percent} %{time})", progress.what, grouped(total))
}

fn span(seconds: f64) -> String {
    let seconds = seconds.min(1e9).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same for programs.
pub(super) fn json(view: &ConnectorView) -> serde_json::Value {
    let progress: Vec<_> =
        view.progress.iter().map(|p| json!({"what": p.what, "done": p.done, "total": p.total})).collect();
    json!({
        "event": "connector",
        "name": view.name,
        "pipeline": view.pipeline,
        "type": view.kind.name(),
        "state": view.state.name(),
        "records": view.records,
        "rate": view.rate,
        "lag": view.lag,
        "errors": view.errors,
        "dead_letters": view.dead_letters,
        "restarts": view.restarts,
        "last_error": view.last_error,
        "retention_warning": view.retention_warning,
        "progress": progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn progress_shows_total_and_time_left() {
        let progress = |done, total| Progress { what: "snapshot of public.orders".into(), done, total };
        assert_eq!(
            progressed(&progress(25_000, Some(100_000)), 1000.0),
            "snapshot of public.orders: 25,000 of about 100,000 (25 %, 1 min 15 s left)"
        );
        assert_eq!(progressed(&progress(7, None), 0.0), "snapshot of public.orders: 7 done");
        assert_eq!(
            progressed(&progress(200, Some(100)), 0.0),
            "snapshot of public.orders: 200 of about 100 (99 %)"
        );
    }
}

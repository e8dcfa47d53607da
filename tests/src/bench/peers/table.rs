//! Medians of the samples and their ratios, as a table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What is compared, and whether more is better.
const FIGURES: &[(&str, bool)] = &[
    ("records_per_s", true),
    ("cpu_s_per_million", false),
    ("avg_ms", false),
    ("p50_ms", false),
    ("p99_ms", false),
    ("p999_ms", false),
    ("ms", false),
    ("resident_mib", false),
];

/// One measurement, by side.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) figure: &'static str,
    pub(super) medians: BTreeMap<String, f64>,
    /// How many times better than Kafka `aqueduct` is; above 1 is better.
    pub(super) ratio: Option<f64>,
}

/// From samples with the keys `bench`, `side` and the figures.
pub(super) fn rows(samples: &[Value]) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    for name in samples.iter().filter_map(|sample| sample["bench"].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut rows = Vec::new();
    for name in names {
        for &(figure, more_is_better) in FIGURES {
            let mut by_side: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            for sample in samples.iter().filter(|sample| sample["bench"] == name) {
                if let (Some(side), Some(value)) = (sample["side"].as_str(), sample[figure].as_f64()) {
                    by_side.entry(side.to_owned()).or_default().push(value);
                }
            }
            if by_side.is_empty() {
                continue;
            }
            let medians: BTreeMap<String, f64> =
                by_side.into_iter().map(|(side, values)| (side, median(values))).collect();
            let ratio = match (medians.get("aqueduct"), medians.get("kafka")) {
                (Some(ours), Some(theirs)) if more_is_better => Some(ours / theirs),
                (Some(ours), Some(theirs)) => Some(theirs / ours),
                _ => None,
            };
            rows.push(Row { name: name.to_owned(), figure, medians, ratio });
        }
    }
    rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// For people.
pub(super) fn print(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<40} {:<18} {:>12} {:>12} {:>8} {:>18}\n",
        "", "median of", "aqueduct", "kafka", "ratio", "aqueduct durable"
    );
    for row in rows {
        let cell = |side: &str| row.medians.get(side).map_or_else(|| "-".to_owned(), |v| number(*v));
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        out.push_str(&format!(
            "{:<40} {:<18} {:>12} {:>12} {:>8} {:>18}\n",
            row.name,
            row.figure,
            cell("aqueduct"),
            cell("kafka"),
            ratio,
            cell("aqueduct durable")
        ));
    }
    out
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// For programs.
pub(super) fn json(rows: &[Row]) -> Value {
    let each = rows.iter().map(|row| {
        let mut out: Map<String, Value> =
            row.medians.iter().map(|(side, value)| (side.clone(), json!(value))).collect();
        out.insert("bench".into(), json!(row.name));
        out.insert("figure".into(), json!(row.figure));
        out.insert("ratio".into(), json!(row.ratio));
        Value::Object(out)
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_above_one_are_better_whatever_the_figure() {
        let sample = |side: &str, rate: u64, cpu: f64| json!({"bench": "produce", "side": side, "records_per_s": rate, "cpu_s_per_million": cpu});
        let samples = [
            sample("aqueduct", 300, 0.5),
            sample("aqueduct", 100, 9.0),
            sample("aqueduct", 200, 0.5),
            sample("kafka", 100, 2.0),
            sample("aqueduct durable", 50, 1.0),
        ];
        let rows = rows(&samples);
        let ratios: Vec<_> = rows.iter().map(|row| (row.figure, row.ratio)).collect();
        assert_eq!(ratios, [("records_per_s", Some(2.0)), ("cpu_s_per_million", Some(4.0))]);
        assert_eq!(rows[0].medians["aqueduct durable"], 50.0);
    }
}

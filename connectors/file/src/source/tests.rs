use std::io::Write as _;
use std::path::Path;

use aqueduct_core::config::{Config, plain};
use aqueduct_core::source::{NoReport, SourcePosition, StoredPositions};

use super::*;

struct Run {
    task: Box<dyn SourceTask>,
    positions: Vec<SourcePosition>,
}

impl Run {
    async fn start(path: &Path, entries: &[(&str, &str)], positions: Vec<SourcePosition>) -> Self {
        let path = path.to_str().expect("UTF-8");
        let mut config: Config = [("path", path), ("topic", "lines"), ("poll.interval", "5ms")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        config.extend(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let mut task = FileSource.task(&plain(&config)).expect("a good config");
        let context = SourceContext {
            connector: "c".into(),
            task: 0,
            positions: StoredPositions(positions.clone()),
            buffer_bytes: 1 << 20,
            reporter: Arc::new(NoReport),
        };
        task.start(context).await.expect("starts");
        Self { task, positions }
    }

    /// The next lines, as JSON; what failed is marked.
    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            for record in self.task.poll().await.expect("reads") {
                if let Some(position) = record.position {
                    self.positions.retain(|known| known.partition != position.partition);
                    self.positions.push(position);
                }
                let Some(read) = record.record else { continue };
                let text = String::from_utf8(read.value.to_json().expect("encodes").to_vec()).expect("UTF-8");
                lines.push(if record.failure.is_some() { format!("failed {text}") } else { text });
            }
        }
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }

    async fn stop(mut self) -> Vec<SourcePosition> {
        self.task.stop().await.expect("stops");
        self.positions
    }
}

fn append(path: &Path, text: &str) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.expect("opens").write_all(text.as_bytes()).expect("writes");
}

#[tokio::test]
async fn a_file_is_followed_and_gone_on_with_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.log");
    append(&path, "one\ntwo\nthr");
    let mut run = Run::start(&path, &[], vec![]).await;
    assert_eq!(run.lines(2).await, [r#""one""#, r#""two""#]);
    append(&path, "ee\nfour\n");
    assert_eq!(run.lines(2).await, [r#""three""#, r#""four""#]);
    let positions = run.stop().await;
    append(&path, "five\n");
    let mut run = Run::start(&path, &[], positions).await;
    assert_eq!(run.lines(1).await, [r#""five""#]);
    run.stop().await;
}

#[tokio::test]
async fn a_rotated_file_is_read_to_its_end_before_the_new_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.log");
    append(&path, "one\n");
    let mut run = Run::start(&path, &[], vec![]).await;
    assert_eq!(run.lines(1).await, [r#""one""#]);
    // While it runs: the last line of the old one has no end.
    append(&path, "two");
    std::fs::rename(&path, dir.path().join("a.log.1")).expect("renames");
    append(&path, "three\n");
    let mut lines = run.lines(2).await;
    lines.sort();
    assert_eq!(lines, [r#""three""#, r#""two""#]);
    // While it is down.
    let positions = run.stop().await;
    append(&path, "four\n");
    std::fs::rename(&path, dir.path().join("a.log.1")).expect("renames");
    append(&path, "five\n");
    let mut run = Run::start(&path, &[], positions).await;
    assert_eq!(run.lines(2).await, [r#""four""#, r#""five""#]);
    run.stop().await;
}

#[tokio::test]
async fn a_file_that_was_cut_is_read_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.log");
    append(&path, "one\ntwo\n");
    let mut run = Run::start(&path, &[], vec![]).await;
    run.lines(2).await;
    std::fs::write(&path, "new\n").expect("writes");
    assert_eq!(run.lines(1).await, [r#""new""#]);
    let positions = run.stop().await;
    // As long as before, but another.
    std::fs::write(&path, "old\n").expect("writes");
    let mut run = Run::start(&path, &[], positions).await;
    assert_eq!(run.lines(1).await, [r#""old""#]);
    run.stop().await;
}

#[tokio::test]
async fn bad_lines_stand_apart_and_nothing_after_them_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.jsonl");
    append(&path, &format!("{{\"a\":1}}\nnope\n{}\n{{\"a\":2}}", "x".repeat(5000)));
    let config = [("format", "json"), ("follow", "false"), ("max.line", "1KiB")];
    let mut run = Run::start(&path, &config, vec![]).await;
    let lines = run.lines(4).await;
    assert_eq!((lines[0].as_str(), lines[3].as_str()), (r#"{"a":1}"#, r#"{"a":2}"#));
    assert!(lines[1].starts_with("failed ") && lines[2].starts_with("failed "), "{lines:?}");
    run.stop().await;
}

#[tokio::test]
async fn compressed_files_are_read_once_and_gone_on_with_in_the_middle() {
    let dir = tempfile::tempdir().expect("a directory");
    let text: String = (0..2500).map(|n| format!("{n}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).expect("compresses");
    std::fs::write(dir.path().join("a.gz"), gzip.finish().expect("compresses")).expect("writes");
    let mut run = Run::start(&dir.path().join("*.gz"), &[], vec![]).await;
    assert_eq!(run.lines(1000).await[999], r#""999""#);
    let positions = run.stop().await;
    let mut run = Run::start(&dir.path().join("*.gz"), &[], positions).await;
    let lines = run.lines(1500).await;
    assert_eq!((lines[0].as_str(), lines[1499].as_str()), (r#""1000""#, r#""2499""#));
    let zstd = zstd::encode_all(&b"z\n"[..], 1).expect("compresses");
    std::fs::write(dir.path().join("b.gz.zst"), zstd).expect("writes");
    let positions = run.stop().await;
    let mut run = Run::start(&dir.path().join("*"), &[], positions).await;
    assert_eq!(run.lines(1).await, [r#""z""#], "what is done is not read again");
    run.stop().await;
}

#[tokio::test]
async fn from_the_end_leaves_out_what_was_there_and_nothing_later() {
    let dir = tempfile::tempdir().expect("a directory");
    append(&dir.path().join("a.log"), "old\n");
    let mut run = Run::start(&dir.path().join("*.log"), &[("from", "end")], vec![]).await;
    append(&dir.path().join("b.log"), "new\n");
    assert_eq!(run.lines(1).await, [r#""new""#]);
    append(&dir.path().join("a.log"), "more\n");
    assert_eq!(run.lines(1).await, [r#""more""#]);
    run.stop().await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_told_and_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("later/a.log");
    let mut run = Run::start(&path, &[], vec![]).await;
    let error = run.task.poll().await.expect_err("no directory");
    assert!(matches!(error.kind(), aqueduct_core::ErrorKind::Retriable { .. }));
    assert!(error.message().contains("cannot list"), "{error}");
    std::fs::create_dir(dir.path().join("later")).expect("made");
    append(&path, "one\n");
    while run.task.poll().await.is_err() {}
    run.stop().await;
}

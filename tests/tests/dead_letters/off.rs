//! Without dead letters a bad record stops the task: its trace stands in the status, and it restarts by itself.

use anyhow::{Result, ensure};
use aqueduct_tests::rest::{task_state, trace};
use aqueduct_tests::topic;

use super::{LIMIT, end, filtered, ids, order, start, until_written, with};

#[test]
fn a_bad_record_stops_the_task_and_it_restarts_with_back_off() {
    stops().expect("as expected");
}

fn stops() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (_, process, rest) = start(dir.path())?;
    topic::create(&process.kafka, "orders", 1, &[])?;
    let mut records: Vec<_> = (1000..3000).map(|id| order(id, 0)).collect();
    records[700].value = Some(br#"{"id":1700}"#.to_vec());
    topic::write(&process.kafka, "orders", &records)?;
    let out = dir.path().join("out");
    let config = filtered("orders", &out);

    // Restarts off, as in Connect.
    rest.put_connector("lake", &with(&config, "errors.restart.enable", "false"))?;
    let status = rest.until_status("lake", LIMIT, |status| task_state(status) == "FAILED")?;
    let why = trace(&status);
    for part in ["orders-0", "offset 700", "TRANSFORMATION", "`rich`", "amount", "errors.tolerance=all"] {
        ensure!(why.contains(part), "the trace lacks `{part}`: {why}");
    }
    ensure!(status["connector"]["state"] == "RUNNING", "{status}");

    rest.put_connector("lake", &config)?;
    for (number, pause) in [(1, "200ms"), (2, "400ms"), (3, "800ms"), (4, "1s")] {
        let text = format!("restart {number} follows after {pause}");
        let status = rest.until_status("lake", LIMIT, |status| trace(status).contains(&text))?;
        ensure!(task_state(&status) == "RESTARTING" && trace(&status).contains("offset 700"), "{status}");
    }
    let at = topic::committed(&process.kafka, "connect-lake", "orders", 0)?;
    ensure!(at.is_none_or(|offset| offset <= 700), "the offset passed the bad record: {at:?}");
    ensure!(rest.metric("aqueduct_connector_restarts", "lake")? >= 3.0, "restarts are counted");

    // Another connector of the same process is not disturbed.
    let other = dir.path().join("other");
    let mended = with(&config, "transforms.rich.condition", "!has(value.amount) || value.amount >= 0");
    let copy = with(&mended, "path", &other.display().to_string());
    rest.put_connector("other", &copy)?;
    ensure!(
        ids(&until_written(&other, 2000, &process)?) == (1000..3000).collect::<Vec<u64>>(),
        "all of them"
    );
    rest.put_connector("lake", &mended)?;
    let lines = until_written(&out, 2000, &process)?;
    ensure!(ids(&lines) == (1000..3000).collect::<Vec<u64>>(), "once and in order");
    rest.until_status("lake", LIMIT, |status| task_state(status) == "RUNNING" && trace(status).is_empty())?;
    end(process)
}

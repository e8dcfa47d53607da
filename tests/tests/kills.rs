//! SIGKILL at moments placed by failpoints, at random, and PostgreSQL restarted under load: the checker finds no
//! difference. After each start of the process it is measured when the first record is through.

mod firsts;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::capture::Scene;
use aqueduct_tests::postgres::Stop;
use aqueduct_tests::process::eventually;
use fastrand::Rng;
use firsts::Firsts;

/// Where the process ends while the snapshot runs: name, and how often it is passed before.
const IN_SNAPSHOT: &[&str] = &[
    "pg.snapshot.before_first_row@1",
    "pg.snapshot.before_first_row@1",
    "pg.snapshot.row@1000",
    "pg.snapshot.row@20000",
    // The end of the snapshot is stored, and nothing streamed yet; then at the very first streamed change.
    "pg.snapshot.done@1",
    "pg.stream.change@1",
];

/// And while the stream runs.
const IN_STREAM: &[&str] = &[
    "runtime.source.after_data_ack@20",
    "runtime.source.after_data_ack@50",
    "runtime.source.after_position_ack@20",
    "runtime.source.after_position_ack@50",
    "pg.before_slot_confirm@20",
    "pg.before_slot_confirm@50",
    "s3.before_complete@3",
    "s3.after_complete@1",
    "s3.after_complete@3",
    "runtime.sink.before_offset_commit@2",
    "runtime.sink.before_offset_commit@4",
];

#[test]
fn kills_at_every_failpoint_lose_and_invent_nothing() {
    let rows = std::env::var("AQUEDUCT_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let Some((scene, workload)) = Scene::new("kills_at_every_failpoint_lose_and_invent_nothing", rows) else {
        return;
    };
    kills(&scene, workload, rows).expect("no difference");
}

fn kills(scene: &Scene, workload: aqueduct_tests::workload::Workload, rows: i64) -> Result<()> {
    let mut firsts = Firsts::default();
    let changing = scene.change(workload, 200);
    for failpoint in IN_SNAPSHOT {
        life(scene, failpoint, Duration::from_secs(60), &mut firsts)?;
    }
    for failpoint in IN_STREAM {
        life(scene, failpoint, Duration::from_secs(90), &mut firsts)?;
    }
    let (mut workload, _) = changing.finish(scene)?;

    // Inside one large transaction.
    scene.runtime.block_on(workload.insert_many(rows, 300))?;
    for failpoint in ["pg.stream.change@10000", "pg.stream.change@40000"] {
        life(scene, failpoint, Duration::from_secs(60), &mut firsts)?;
    }

    // Enough bytes at once for uploads in parts, and time for them also where the machine is busy.
    set_age(scene, "1s", "10s")?;
    for failpoint in ["s3.part@1", "s3.part@3"] {
        scene.runtime.block_on(workload.insert_many(20_000, 3_000))?;
        life(scene, failpoint, Duration::from_secs(60), &mut firsts)?;
    }
    set_age(scene, "10s", "1s")?;

    let changing = scene.change(workload, 200);
    let mut rng = Rng::with_seed(3);
    for _ in 0..5 {
        let lives = Duration::from_millis(rng.u64(300..4000));
        let mut life = firsts.begin(scene, "random")?;
        let mut process = scene.start.spawn()?;
        life.watch(scene, &mut process, lives)?;
        process.kill()?;
        firsts.end(life);
    }
    let mut life = firsts.begin(scene, "last")?;
    let mut process = scene.start.spawn()?;
    life.watch_until_complete(scene, &mut process, Duration::from_secs(60))
        .with_context(|| process.output())?;
    firsts.end(life);
    firsts.report();

    for how in [Stop::Immediate, Stop::Fast] {
        let took = scene.postgres.stop(how)?;
        ensure!(
            took < Duration::from_secs(5),
            "PostgreSQL took {took:?} to stop ({how:?}):\n{}",
            process.output()
        );
        scene.postgres.up("")?;
        let before = scene.confirmed()?;
        eventually("changes flow again", Duration::from_secs(60), || {
            scene.confirmed().is_ok_and(|now| now > before)
        })
        .with_context(|| process.output())?;
    }
    let (workload, transactions) = changing.finish(scene)?;
    ensure!(transactions > 100, "only {transactions} transactions");
    scene.judge(&workload, &process, Duration::from_secs(180)).map(drop)
}

/// When objects are completed, from the next start on.
fn set_age(scene: &Scene, from: &str, to: &str) -> Result<()> {
    let file = scene.dir().join("postgres-to-s3.yaml");
    let text = std::fs::read_to_string(&file)?;
    let changed = text.replace(&format!("age: {from}"), &format!("age: {to}"));
    ensure!(changed != text, "the age is not {from}");
    Ok(std::fs::write(&file, changed)?)
}

/// One life of the process, which ends at the failpoint.
fn life(scene: &Scene, failpoint: &str, limit: Duration, firsts: &mut Firsts) -> Result<()> {
    let start = scene.start.clone().env("AQUEDUCT_FAILPOINT", failpoint);
    let mut life = firsts.begin(scene, failpoint)?;
    let begun = Instant::now();
    let mut process = start.spawn()?;
    life.watch(scene, &mut process, limit)?;
    let status = process.wait(Duration::ZERO).with_context(|| format!("`{failpoint}` was not reached"))?;
    ensure!(!status.success(), "`{failpoint}`: ended with {status}");
    ensure!(
        process.output().contains(&format!("failpoint {}", failpoint.split('@').next().unwrap_or_default())),
        "`{failpoint}`: ended otherwise ({status}):\n{}",
        process.output()
    );
    eprintln!("{failpoint}: reached after {:?}", begun.elapsed());
    firsts.end(life);
    Ok(())
}

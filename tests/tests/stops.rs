//! Orderly stops while something hangs: prompt, nothing abandoned, nothing lost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::Start;
use aqueduct_tests::rest::Rest;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(40);

/// An object store that lists an empty bucket once, and then takes every request without an answer. Says so at each.
fn hanging_store() -> Result<(String, mpsc::Receiver<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (hung_in, hung) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        let mut listed = false;
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            if std::mem::replace(&mut listed, true) {
                kept.push(connection);
                if hung_in.send(()).is_err() {
                    return;
                }
            } else if connection.read(&mut [0; 16 << 10]).is_ok() {
                let body =
                    "<?xml version=\"1.0\"?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>";
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n";
                write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).ok();
            }
        }
    });
    Ok((endpoint, hung))
}

#[test]
fn a_sink_whose_store_hangs_is_not_waited_for() {
    hanging_sink().expect("it stops");
}

fn hanging_sink() -> Result<()> {
    let (endpoint, hung) = hanging_store()?;
    let dir = tempfile::tempdir()?;
    let mut process = Start::run(dir.path(), &[]).start()?;
    let rest = Rest::new(&process)?;
    rest.put_connector("gen", &json!({ "connector.class": "datagen", "topic": "made", "count": "1000" }))?;
    let sink = json!({
        "connector.class": "s3", "topics": "made", "bucket": "lake", "endpoint": endpoint, "region": "us-east-1",
        "access_key": "a", "secret_key": "s", "path_style": "true", "timeout": "10m", "roll.count": "10",
    });
    rest.put_connector("lake", &sink)?;
    hung.recv_timeout(LIMIT).with_context(|| process.output())?;
    let status = process.terminate(LIMIT)?;
    let output = process.output();
    ensure!(status.success() && !output.contains("abandoned"), "{status}: {output}");
    Ok(())
}

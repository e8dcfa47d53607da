//! The REST API as a test uses it: one call at a time, every answer with its status.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::process::Aqueduct;

/// A client of one process.
pub struct Rest {
    runtime: Runtime,
    client: Client,
    base: String,
}

impl Rest {
    /// A client of this process.
    pub fn new(process: &Aqueduct) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { runtime, client, base: process.rest.clone() })
    }

    /// One call: status and body, which is a JSON string when it is not JSON.
    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        request = match body {
            Some(body) => request.json(body),
            None => request.header("content-type", "application/json"),
        };
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            let text = answer.text().await?;
            Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
        })
    }

    /// The body of a path that must be there.
    pub fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.call(Method::GET, path, None)?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(body)
    }

    /// Creates a connector or replaces its config.
    pub fn put_connector(&self, name: &str, config: &Value) -> Result<()> {
        let path = format!("/connectors/{name}/config");
        // The ports answer before the runtime is up.
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, body) = self.call(Method::PUT, &path, Some(config))?;
            match status {
                200 | 201 => return Ok(()),
                503 if Instant::now() < until => std::thread::park_timeout(Duration::from_millis(20)),
                _ => bail!("{path}: {status} {body}"),
            }
        }
    }

    /// Looks at the status of a connector until it holds, and returns it.
    pub fn until_status(&self, name: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let path = format!("/connectors/{name}/status");
        let until = Instant::now() + limit;
        loop {
            let (status, body) = self.call(Method::GET, &path, None)?;
            if status == 200 && holds(&body) {
                return Ok(body);
            }
            ensure!(Instant::now() < until, "{name} is not as expected within {limit:?}: {status} {body}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// A number on the page of metrics, summed over all series of that name with `label` in them.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let page = self.get("/metrics")?;
        let lines = page.as_str().unwrap_or_default().lines();
        let series = lines.filter(|line| line.starts_with(name) && line.contains(label));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

/// State of the connector's first task.
pub fn task_state(status: &Value) -> &str {
    status["tasks"][0]["state"].as_str().unwrap_or_default()
}

/// Why the connector's first task, or the connector itself, has failed.
pub fn trace(status: &Value) -> &str {
    let task = status["tasks"][0]["trace"].as_str();
    task.or_else(|| status["connector"]["trace"].as_str()).unwrap_or_default()
}

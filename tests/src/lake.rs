//! Reading back what a sink wrote: JSON lines (compressed or not) and Parquet from every object of a bucket, or JSON lines
//! from every file of a directory.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_s3::Client;
use bytes::Bytes;

/// The lines of all objects, and how many objects there are. Records of Parquet are the lines that the sink writes for
/// them as JSON, but for the digits of decimals that no double holds.
pub async fn bucket_lines(client: &Client, bucket: &str) -> Result<(Vec<String>, usize)> {
    let mut lines = Vec::new();
    let mut objects = 0;
    let mut pages = client.list_objects_v2().bucket(bucket).into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page?.contents() {
            let key = object.key().context("an object has a key")?;
            let body = client.get_object().bucket(bucket).key(key).send().await?.body.collect().await?;
            lines.extend(object_lines(key, body.into_bytes()).with_context(|| key.to_owned())?);
            objects += 1;
        }
    }
    Ok((lines, objects))
}

fn object_lines(key: &str, body: Bytes) -> Result<Vec<String>> {
    let mut text = String::new();
    match key.rsplit('.').next() {
        Some("parquet") => {
            let records = aqueduct_format_parquet::read_json(body).map_err(|e| anyhow::anyhow!(e.full()))?;
            return Ok(records.iter().map(ToString::to_string).collect());
        }
        Some("gz") => drop(flate2::read::MultiGzDecoder::new(&body[..]).read_to_string(&mut text)?),
        Some("zst") => drop(zstd::stream::read::Decoder::new(&body[..])?.read_to_string(&mut text)?),
        _ => text = String::from_utf8(body.to_vec()).context("it is not UTF-8")?,
    }
    ensure!(text.ends_with('\n'), "it does not end in a newline: it is half written");
    Ok(text.lines().map(str::to_owned).collect())
}

/// The lines of all finished files under `dir`.
pub fn directory_lines(dir: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if !dir.exists() {
        return Ok(lines);
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            lines.extend(directory_lines(&path)?);
        } else if !name.starts_with('.') {
            let text = std::fs::read_to_string(&path)?;
            ensure!(text.is_empty() || text.ends_with('\n'), "{name} is half written");
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    Ok(lines)
}

//! Reading back what a sink wrote: JSON lines from every object of a bucket, or every file of a directory.

use std::path::Path;

use anyhow::{Context as _, Result};
use aws_sdk_s3::Client;

/// The lines of all objects, and how many objects there are.
pub async fn bucket_lines(client: &Client, bucket: &str) -> Result<(Vec<String>, usize)> {
    let mut lines = Vec::new();
    let mut objects = 0;
    let mut pages = client.list_objects_v2().bucket(bucket).into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page?.contents() {
            let key = object.key().context("an object has a key")?;
            let body = client.get_object().bucket(bucket).key(key).send().await?.body.collect().await?;
            let text = String::from_utf8(body.to_vec()).with_context(|| format!("{key} is not UTF-8"))?;
            anyhow::ensure!(text.ends_with('\n'), "{key} does not end in a newline: it is half written");
            lines.extend(text.lines().map(str::to_owned));
            objects += 1;
        }
    }
    Ok((lines, objects))
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
            anyhow::ensure!(text.is_empty() || text.ends_with('\n'), "{name} is half written");
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    Ok(lines)
}

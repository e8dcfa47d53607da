//! `meta.properties`: whose data directory it is.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::checked_file::{read_bytes, replace_bytes};
use crate::disk::Disk;
use crate::error::{LogError, Result};

const FILE: &str = "meta.properties";
const VERSION: u32 = 1;

/// Who owns a data directory. Written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryIdentity {
    pub cluster_id: String,
    pub node_id: i32,
    pub directory_id: Uuid,
}

impl DirectoryIdentity {
    pub(super) fn load_or_create(
        disk: &dyn Disk,
        root: &Path,
        cluster_id: Option<&str>,
        node_id: i32,
    ) -> Result<Self> {
        let path = root.join(FILE);
        let Some(bytes) = read_bytes(disk, &path)? else {
            refuse_foreign(disk, root)?;
            // Whoever made the directory, perhaps a first start that ended at once. A relative one such as `data` has
            // the parent ``.
            let parent =
                root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            disk.sync_dir(parent).map_err(|e| LogError::io("sync directory", parent, e))?;
            let random = || URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
            let cluster_id = cluster_id.map_or_else(random, ToOwned::to_owned);
            let identity = Self { cluster_id, node_id, directory_id: Uuid::new_v4() };
            replace_bytes(disk, &path, identity.encode().as_bytes())?;
            return Ok(identity);
        };
        let identity = Self::decode(&path, &bytes)?;
        let wrong = |what: String| Err(LogError::WrongDirectory { dir: root.to_owned(), what });
        if let Some(asked) = cluster_id.filter(|asked| *asked != identity.cluster_id) {
            return wrong(format!("belongs to cluster `{}`, not to `{asked}`", identity.cluster_id));
        }
        if identity.node_id != node_id {
            return wrong(format!("belongs to node `{}`, not to `{node_id}`", identity.node_id));
        }
        Ok(identity)
    }

    fn encode(&self) -> String {
        let Self { cluster_id, node_id, directory_id } = self;
        format!(
            "# Whose data directory this is. Do not edit.\nversion={VERSION}\ncluster.id={cluster_id}\n\
             node.id={node_id}\ndirectory.id={directory_id}\n"
        )
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| LogError::corrupt(path, 0, e.to_string()))?;
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let found = lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim());
            found.ok_or_else(|| LogError::corrupt(path, 0, format!("`{name}` is missing")))
        };
        let invalid = |name: &str| LogError::corrupt(path, 0, format!("`{name}` is not valid"));
        let version: u32 = field("version")?.parse().map_err(|_| invalid("version"))?;
        if version > VERSION {
            return Err(LogError::NewerFormat { path: path.to_owned(), found: version, supported: VERSION });
        }
        Ok(Self {
            cluster_id: field("cluster.id")?.to_owned(),
            node_id: field("node.id")?.parse().map_err(|_| invalid("node.id"))?,
            directory_id: field("directory.id")?.parse().map_err(|_| invalid("directory.id"))?,
        })
    }
}

/// A directory with partitions but without an identity was not made by a first start.
fn refuse_foreign(disk: &dyn Disk, root: &Path) -> Result<()> {
    let list = disk.list(root).map_err(|e| LogError::io("list", root, e))?;
    match list
        .iter()
        .find(|e| e.name == crate::checkpoints::CHECKPOINT_FILE || super::partitions::is_partition(e))
    {
        None => Ok(()),
        Some(entry) => {
            let what = format!("holds `{}` but no `{FILE}`", entry.name);
            Err(LogError::WrongDirectory { dir: root.to_owned(), what })
        }
    }
}

//! A proxy that loses a reply: the server has done what was asked, and nobody hears of it.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Pattern = fn(&[u8]) -> bool;

/// Stops when dropped.
pub(crate) struct Proxy {
    port: u16,
    lose: Arc<Mutex<Option<Pattern>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lose = Arc::new(Mutex::new(None));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&lose);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let lose = Arc::clone(&shared);
                connections.spawn(async move { connection(client, to, &lose).await.unwrap_or(()) });
            }
        });
        Self { port, lose, _tasks: tasks }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The reply to the next request whose head matches is lost.
    pub(crate) fn lose(&self, pattern: Pattern) {
        *self.lose.lock().unwrap() = Some(pattern);
    }

    /// Whether it was.
    pub(crate) fn lost(&self) -> bool {
        self.lose.lock().unwrap().is_none()
    }
}

async fn connection(mut client: TcpStream, to: u16, lose: &Mutex<Option<Pattern>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                losing |= {
                    let mut pattern = lose.lock().unwrap();
                    let hit = pattern.is_some_and(|matches| matches(&up[..read]));
                    if hit {
                        *pattern = None;
                    }
                    hit
                };
                server.write_all(&up[..read]).await?;
            }
            read = server.read(&mut down) => {
                let read = read?;
                if read == 0 || losing {
                    return Ok(());
                }
                client.write_all(&down[..read]).await?;
            }
        }
    }
}

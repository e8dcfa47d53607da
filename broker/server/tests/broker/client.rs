//! The smallest possible Kafka client: one connection, any message, any version.

use std::time::Duration;

use aqueduct_broker::Handle;
use aqueduct_wire::frame::{decode_response, encode_request};
use aqueduct_wire::message::RequestMessage;
use aqueduct_wire::{ByteString, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Everything answers within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    stream: TcpStream,
    last: i32,
}

impl Client {
    pub(crate) async fn connect(broker: &Handle) -> Self {
        Self { stream: TcpStream::connect(broker.addr()).await.expect("connects"), last: 0 }
    }

    pub(crate) async fn ask<R: RequestMessage>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        self.receive::<R>(version, id).await
    }

    /// The correlation id to receive the answer by.
    pub(crate) async fn send<R: RequestMessage>(&mut self, version: i16, request: &R) -> i32 {
        self.last += 1;
        let name = ByteString::from_static("test");
        let frame = encode_request(version, self.last, Some(&name), request).expect("encodes");
        self.send_raw(&frame.to_bytes()).await;
        self.last
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("is sent");
    }

    pub(crate) async fn receive<R: RequestMessage>(&mut self, version: i16, id: i32) -> R::Response {
        let reading = async {
            let size = self.stream.read_u32().await.expect("an answer");
            let mut frame = vec![0; size as usize];
            self.stream.read_exact(&mut frame).await.expect("a whole answer");
            frame
        };
        let frame = tokio::time::timeout(PATIENCE, reading).await.expect("in time");
        let (got, response) = decode_response::<R>(version, Bytes::from(frame)).expect("decodes");
        assert_eq!(got, id, "answers come in the order of the requests");
        response
    }

    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("in time");
        // A reset is an end, too: what was sent had not been read to its end.
        read.is_err() || rest.is_empty()
    }
}

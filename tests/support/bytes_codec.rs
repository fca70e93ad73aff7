//! The barest codec: for peers that send what they are told to, and for the echo that benchmarks measure against.

use std::io;

use bytes::Bytes;
use futures::prelude::*;
use libp2p::{StreamProtocol, request_response};

/// Bytes as they come, however many: the end of a half of the stream is the end of the message.
#[derive(Clone, Default)]
pub struct BytesCodec;

impl request_response::Codec for BytesCodec {
    type Protocol = StreamProtocol;
    type Request = Bytes;
    type Response = Bytes;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::with_capacity(4096);
        io.read_to_end(&mut bytes).await?;
        Ok(bytes.into())
    }

    async fn read_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read_request(protocol, io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request).await
    }

    async fn write_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T, response: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write_request(protocol, io, response).await
    }
}

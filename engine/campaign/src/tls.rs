//! TLS to the database: the name that was asked for must be in a certificate that one of the given roots has signed, and
//! there is no weaker mode. It is TLS 1.3, as rustls is built without 1.2. PacketLab's own certificates have no part in it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::access::Access;
use crate::database_error::DatabaseError;

/// Makes connections of TLS to whichever host of an address is tried.
#[derive(Clone)]
pub(crate) struct VerifiedTls {
    connector: TlsConnector,
}

/// A connection to one host that is about to be made.
pub(crate) struct ToHost {
    /// Empty for a unix socket, where no TLS is asked for.
    host: Result<ServerName<'static>, InvalidDnsNameError>,
    connector: TlsConnector,
}

pub(crate) struct VerifiedStream(TlsStream<Socket>);

impl VerifiedTls {
    pub(crate) fn new(access: &Access) -> Result<Self, DatabaseError> {
        let bad = |why: String| DatabaseError::Trust(why);
        let roots = match &access.roots {
            Some(roots) => roots.store(),
            None if !access.address.needs_tls() => Arc::new(RootCertStore::empty()),
            None => {
                return Err(bad(
                    "over the network the database must prove who it is: roots are needed, \
                                one of which has signed its certificate"
                        .to_owned(),
                ));
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &access.certificate {
            Some(own) => config.with_client_cert_resolver(own.shown()),
            None => config.with_no_client_auth(),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }
}

impl MakeTlsConnect<Socket> for VerifiedTls {
    type Stream = VerifiedStream;
    type TlsConnect = ToHost;
    type Error = Infallible;

    fn make_tls_connect(&mut self, domain: &str) -> Result<ToHost, Infallible> {
        let host = ServerName::try_from(domain.to_owned());
        Ok(ToHost { host, connector: self.connector.clone() })
    }
}

impl TlsConnect<Socket> for ToHost {
    type Stream = VerifiedStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<VerifiedStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let host = self.host.map_err(io::Error::other)?;
            let stream = self.connector.connect(host, socket).await?;
            Ok(VerifiedStream(stream))
        })
    }
}

impl tokio_postgres::tls::TlsStream for VerifiedStream {
    /// A password goes to a server whose certificate is verified, so it is not tied to that certificate once more.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for VerifiedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for VerifiedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

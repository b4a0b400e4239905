//! TLS to the database: the name that was asked for must be in a certificate that one of the given roots has signed, and
//! there is no weaker mode. It is TLS 1.3, as rustls is built without 1.2. PacketLab's own certificates have no part in it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::access::{Access, ClientCertificate};
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
        let mut roots = RootCertStore::empty();
        for certificate in access.roots.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)) {
            let certificate = certificate
                .map_err(|error| bad(format!("the file of roots is no PEM: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| bad(format!("a root cannot be used: {error}")))?;
        }
        if roots.is_empty() && access.address.needs_tls() {
            return Err(bad(
                "over the network the database must prove who it is: a file of roots is needed, \
                 with the certificate that has signed the database's"
                    .to_owned(),
            ));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &access.certificate {
            Some(own) => with_certificate(config, own).map_err(|why| {
                bad(format!("the certificate for the database cannot be used: {why}"))
            })?,
            None => config.with_no_client_auth(),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }
}

fn with_certificate(
    config: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    own: &ClientCertificate,
) -> Result<ClientConfig, String> {
    let chain = CertificateDer::pem_slice_iter(&own.chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&own.key).map_err(|error| error.to_string())?;
    config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
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

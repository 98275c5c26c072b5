//! What the command line takes of certificates.

use crate::cli::exit::{self, ExitStatus, Failure, examples};
use crate::cli::units::count_above_zero;
use crate::client::Endpoint;
use crate::codec::{host_of, is_loopback};
use crate::tls::{
    Audience, CertificateFiles, ClientCertificates, ClientTls, PemSet, PortTls, TlsError, WallClock,
    read_file,
};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Certificates of a node.
#[derive(Clone, Debug, Args)]
pub(super) struct NodeTlsArgs {
    /// Serve clients over TLS, with this certificate [default: without TLS]
    #[arg(long, env = "INFINITYSTORE_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert [default: none]
    #[arg(long, env = "INFINITYSTORE_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// Ask clients for certificates of these authorities [default: none are asked for]
    #[arg(long, env = "INFINITYSTORE_TLS_CLIENT_CA", requires = "tls_cert", value_name = "FILE")]
    pub(super) tls_client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is let in, where they are asked for
    #[arg(
        long,
        env = "INFINITYSTORE_TLS_CLIENT_AUTH",
        value_enum,
        default_value = "required",
        value_name = "WHETHER"
    )]
    pub(super) tls_client_auth: ClientAuth,
    /// Speak TLS with the other nodes, with this certificate, whose common name is --node-id
    /// [default: without TLS]
    #[arg(long, env = "INFINITYSTORE_PEER_TLS_CERT", requires_all = ["peer_tls_key", "peer_tls_ca"], value_name = "FILE")]
    pub(super) peer_tls_cert: Option<PathBuf>,
    /// The key of --peer-tls-cert [default: none]
    #[arg(long, env = "INFINITYSTORE_PEER_TLS_KEY", requires = "peer_tls_cert", value_name = "FILE")]
    pub(super) peer_tls_key: Option<PathBuf>,
    /// The authorities whose nodes may be members of the cluster [default: none]
    #[arg(long, env = "INFINITYSTORE_PEER_TLS_CA", requires = "peer_tls_cert", value_name = "FILE")]
    pub(super) peer_tls_ca: Option<PathBuf>,
    /// Let other machines reach --raft-addr without TLS. Any of them can read and change
    /// everything
    #[arg(long, env = "INFINITYSTORE_INSECURE")]
    pub(super) insecure: bool,
}

/// Whether a client needs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientAuth {
    /// It needs one
    Required,
    /// It is let in without one, too
    Optional,
}

/// Certificates of a client.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ClientTlsArgs {
    /// The authorities that the nodes' certificates are of, for endpoints of https://
    /// [default: none]
    #[arg(long, env = "INFINITYSTORE_CACERT", value_name = "FILE", global = true)]
    pub(super) cacert: Option<PathBuf>,
    /// The certificate to show to nodes [default: none]
    #[arg(long = "cert", env = "INFINITYSTORE_CERT", value_name = "FILE", global = true)]
    pub(super) client_cert: Option<PathBuf>,
    /// The key of --cert [default: none]
    #[arg(long = "cert-key", env = "INFINITYSTORE_CERT_KEY", value_name = "FILE", global = true)]
    pub(super) client_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TlsCommand {
    /// Make an authority, and certificates for the nodes and clients of a cluster
    ///
    /// Writes `ca.pem` and `ca.key`, and NAME.pem and NAME.key for each node and each client.
    /// Nobody but you may read them, and none that is there is overwritten. If DIR has an authority
    /// already, it signs what is new. Keep `ca.key` away from the nodes: with it one can be any
    /// of them.
    #[command(after_help = exit::HELP, after_long_help = examples!(tls_exit_codes:
        "infinitystore tls create --dir certs --nodes n1=10.0.0.1,n2=10.0.0.2,n3=10.0.0.3",
        "infinitystore tls create --dir certs --nodes n4=10.0.0.4 --clients backup      # later, by the same authority",
        "infinitystore tls create --dir new --ca-dir certs --nodes n1=10.0.0.1          # to replace one that ends"
    ))]
    Create(CreateArgs),
    /// Say of whom the certificates in a file are, and until when
    #[command(after_help = exit::HELP)]
    Show {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// The exit codes of `tls`.
macro_rules! tls_exit_codes {
    () => {
        "\
Exit codes:
  0    it did what was asked
  1    it failed: a file cannot be written, say
  2    wrong usage, or a file that is there already"
    };
}
use tls_exit_codes;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Where the files go
    #[arg(long, default_value = "certs", value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Where the authority is [default: --dir]
    #[arg(long, value_name = "DIR")]
    pub(super) ca_dir: Option<PathBuf>,
    /// The nodes, and the hosts at which they are reached; a node may be named several times
    /// [default: none]
    #[arg(long, value_delimiter = ',', value_parser = NonEmptyStringValueParser::new(), value_name = "NAME=HOST,…")]
    pub(super) nodes: Vec<String>,
    /// Clients [default: `client`, if the authority is new]
    #[arg(long, value_delimiter = ',', value_parser = NonEmptyStringValueParser::new(), value_name = "NAME,…")]
    pub(super) clients: Vec<String>,
    /// How long the certificates are valid
    #[arg(long, default_value_t = 365, value_parser = count_above_zero, value_name = "DAYS")]
    pub(super) days: usize,
    /// How long a new authority is valid
    #[arg(long, default_value_t = 3650, value_parser = count_above_zero, value_name = "DAYS")]
    pub(super) ca_days: usize,
}

impl NodeTlsArgs {
    /// The TLS of the client port.
    pub(super) fn for_clients(&self) -> Result<Option<Arc<PortTls>>, Failure> {
        let Some((certificate, key)) = self.tls_cert.clone().zip(self.tls_key.clone()) else {
            return Ok(None);
        };
        let authorities = self.tls_client_ca.clone();
        let certificates = match (&authorities, self.tls_client_auth) {
            (None, _) => ClientCertificates::NotAsked,
            (Some(_), ClientAuth::Required) => ClientCertificates::Required,
            (Some(_), ClientAuth::Optional) => ClientCertificates::Optional,
        };
        let files = CertificateFiles { certificate, key, authorities };
        load("--tls-cert", Audience::Clients { certificates }, files)
    }

    /// The TLS of the raft port.
    pub(super) fn for_members(&self, name: &str) -> Result<Option<Arc<PortTls>>, Failure> {
        let pair = self.peer_tls_cert.clone().zip(self.peer_tls_key.clone());
        let Some((certificate, key)) = pair else { return Ok(None) };
        let files = CertificateFiles { certificate, key, authorities: self.peer_tls_ca.clone() };
        load("--peer-tls-cert", Audience::Members { name: name.to_owned() }, files)
    }
}

impl NodeTlsArgs {
    /// Says so where clients are served in clear text.
    pub(super) fn warn_of_clear_text(&self, http_addr: &str) {
        if self.tls_cert.is_some() {
            return;
        }
        if is_loopback(host_of(http_addr)) {
            tracing::info!("clients are served without TLS, on this machine alone");
        } else {
            tracing::warn!(
                addr = %http_addr,
                "clients are served without TLS: anybody on their way can read and change what they send; see --tls-cert"
            );
        }
    }
}

fn load(flag: &str, audience: Audience, files: CertificateFiles) -> Result<Option<Arc<PortTls>>, Failure> {
    let loaded = PortTls::load(audience, Arc::new(files), WallClock::of_the_system());
    loaded.map(Some).map_err(|error| Failure::new(ExitStatus::Usage, format!("{flag}: {error}")))
}

impl ClientTlsArgs {
    /// A token or a password goes to no other machine in clear text where TLS is meant: where there
    /// are options for it, or another endpoint has it.
    pub(super) fn refuse_clear_text(&self, endpoints: &[Endpoint]) -> Result<(), Failure> {
        let has_options = self.cacert.is_some() || self.client_cert.is_some() || self.client_key.is_some();
        let clear = endpoints.iter().find(|endpoint| !endpoint.is_tls() && !endpoint.is_loopback());
        match clear {
            Some(clear) if has_options || endpoints.iter().any(Endpoint::is_tls) => {
                let why = if has_options { "--cacert or --cert is given" } else { "another one is https://" };
                let text = format!(
                    "--endpoints has {clear} without https://, and {why}: a token or a password would go there in \
                     clear text; write https://{clear}"
                );
                Err(Failure::new(ExitStatus::Usage, text))
            }
            _ => Ok(()),
        }
    }

    /// What a client of these endpoints needs.
    pub(super) fn load(&self, endpoints: &[Endpoint]) -> Result<Option<ClientTls>, Failure> {
        if !endpoints.iter().any(Endpoint::is_tls) {
            return Ok(None);
        }
        let usage = |text: String| Failure::new(ExitStatus::Usage, text);
        let Some(cacert) = &self.cacert else {
            return Err(usage(
                "an endpoint is https://, so --cacert has to name the file of the authority that signed its certificate, as \
                 in --cacert certs/ca.pem"
                    .to_owned(),
            ));
        };
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err(usage("--cert and --cert-key go together".to_owned()));
        }
        let unread = |error: TlsError| usage(error.to_string());
        let file = |path: &Option<PathBuf>| path.as_deref().map(read_file).transpose().map_err(unread);
        let pem = PemSet {
            certificate: file(&self.client_cert)?.unwrap_or_default(),
            key: file(&self.client_key)?.unwrap_or_default(),
            authorities: read_file(cacert).map_err(unread)?,
        };
        let named = |error: TlsError| usage(format!("--cacert, --cert, --cert-key: {error}"));
        ClientTls::new(&pem, WallClock::of_the_system()).map(Some).map_err(named)
    }
}

/// The words of a command line that starts a node with certificates from `dir`.
pub(super) fn node_words(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "--tls-cert {dir}/{name}.pem --tls-key {dir}/{name}.key --peer-tls-cert {dir}/{name}.pem --peer-tls-key \
         {dir}/{name}.key"
    )
}

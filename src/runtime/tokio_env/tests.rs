use crate::raft::Time;
use crate::runtime::tokio_env::{Clock, TokioEnv, TokioListener, first_to_answer};
use crate::runtime::{Env, Listener};
use crate::storage::MemoryDisk;
use rustix::net::sockopt;
use std::future::pending;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

fn addrs(count: u16) -> Vec<SocketAddr> {
    (1..=count).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_hides_no_other_address_of_its_name() {
    for live in 1..=8 {
        let connect = move |addr: SocketAddr| async move {
            if addr.port() == live { Ok(live) } else { pending().await }
        };
        // A link gives the whole attempt up after three seconds.
        let connected = timeout(Duration::from_secs(3), first_to_answer(addrs(8), connect)).await;
        assert!(matches!(connected, Ok(Ok(port)) if port == live), "{live}: {connected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_refuses_only_if_each_of_its_addresses_does() {
    let fail = |kinds: [ErrorKind; 3]| {
        let connect = move |addr: SocketAddr| async move {
            Err::<(), _>(Error::from(kinds[usize::from(addr.port()) - 1]))
        };
        first_to_answer(addrs(3), connect)
    };
    let (refused, other) = (ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable);
    assert_eq!(fail([refused; 3]).await.unwrap_err().kind(), refused);
    for kinds in [[other, refused, refused], [refused, other, refused], [refused, refused, other]] {
        assert_eq!(fail(kinds).await.unwrap_err().kind(), other, "{kinds:?}");
    }
    assert_eq!(
        first_to_answer(Vec::new(), |_| async { Ok(()) }).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// For how long the machine is switched on.
static UPTIME_MILLIS: AtomicU64 = AtomicU64::new(5_000);

#[tokio::test(start_paused = true)]
async fn the_clock_is_the_machines_which_goes_on_while_it_sleeps() {
    let clock = Clock::of_machine(|| Duration::from_millis(UPTIME_MILLIS.load(Ordering::Relaxed)));
    assert_eq!(clock.now(), Time::new(0));
    // Tokio's clock stands still.
    UPTIME_MILLIS.store(66_000, Ordering::Relaxed);
    assert_eq!(clock.now(), Time::new(61_000_000));
    assert_eq!(clock.wait(Time::new(62_000_000)), Duration::from_secs(1));
    assert_eq!(clock.wait(Time::new(3)), Duration::ZERO, "what is over is due at once");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_over_is_not_waited_for() {
    let env = TokioEnv::new(MemoryDisk::new());
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = tokio::time::Instant::now();
    env.sleep_until(Time::new(3)).await;
    env.sleep_until(env.now()).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// Linux ends a connection by the same time-out if its client has no room for more. A client may
/// pause: how long is the server's to say.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_pauses_is_not_cut_off_by_the_system() {
    let env = TokioEnv::new(MemoryDisk::new());
    let limits = async |mut listener: TokioListener| {
        let connected = env.connect(&listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let keeps_alive = sockopt::socket_keepalive(&accepted).unwrap();
        drop(connected);
        (sockopt::tcp_user_timeout(&accepted).unwrap(), keeps_alive)
    };
    let clients = env.listen_to_clients("127.0.0.1:0").await.unwrap();
    assert_eq!(limits(clients).await, (0, true));
    assert_eq!(limits(env.listen("127.0.0.1:0").await.unwrap()).await, (10_000, true));
}

/// However it is written.
#[tokio::test]
async fn a_stranger_has_nobody_called_on_one_link() {
    let env = TokioEnv::new(MemoryDisk::new());
    for addr in ["169.254.169.254:80", "2852039166:80", "0xa9fea9fe:80", "[fe80::1%2]:80"] {
        let error = env.connect_beyond_link(addr).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("an address of one link"), "{addr}: {error}");
    }
    let listener = env.listen("127.0.0.1:0").await.unwrap();
    env.connect_beyond_link(&listener.local_addr().unwrap()).await.unwrap();
}

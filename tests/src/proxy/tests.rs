//! Each fault is seen to do something that its absence does not.

use std::io::ErrorKind;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than loopback ever takes on an idle machine, so that a fault that does nothing is seen.
const A_WHILE: Duration = Duration::from_millis(300);

/// Echoes what each connection sends, and ends when it does.
async fn echo() -> SocketAddr {
    server(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

/// Answers every request with the next of these bodies.
async fn http(bodies: &'static [&'static str]) -> SocketAddr {
    server(move |mut stream| async move {
        for body in bodies {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return,
                }
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.expect("taken");
            stream.write_all(body.as_bytes()).await.expect("taken");
        }
    })
    .await
}

async fn server<F: Future<Output = ()> + Send + 'static>(
    each: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    address
}

async fn through(faults: Faults) -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await).await;
    proxy.set(faults);
    let stream = TcpStream::connect(proxy.address()).await.expect("it listens");
    (proxy, stream)
}

/// What comes until the end, and how that was.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    let end = tokio::time::timeout(PATIENCE, read).await.expect("an end in time");
    (all, end.err().map(|error| error.kind()))
}

async fn exactly(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    let read = stream.read_exact(&mut all);
    tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("so many bytes");
    all
}

/// Nothing comes for a while.
async fn silent(stream: &mut TcpStream) {
    let read = tokio::time::timeout(A_WHILE, stream.read_u8()).await;
    assert!(read.is_err(), "something came: {read:?}");
}

fn down(flow: Flow) -> Faults {
    Faults { down: flow, ..Faults::default() }
}

fn up(flow: Flow) -> Faults {
    Faults { up: flow, ..Faults::default() }
}

#[tokio::test]
async fn without_faults_bytes_pass_and_ends_are_passed_on_alone() {
    let (proxy, mut stream) = through(Faults::default()).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 + n / 256) as u8).collect();
    let (mut from, mut to) = stream.split();
    let mut got = Vec::new();
    let (wrote, read) = tokio::join!(
        async {
            to.write_all(&sent).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut got)
    );
    wrote.expect("taken");
    read.expect("an end");
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.up_bytes), (1, 3_000_000));
    assert_eq!((counts.down_bytes, counts.swallowed_bytes, counts.cuts), (3_000_000, 0, 0));
}

#[tokio::test]
async fn a_delay_holds_each_direction_back() {
    let flow = Flow { delay: A_WHILE, ..Flow::default() };
    for (faults, least) in [(up(flow), 1), (Faults { up: flow, ..down(flow) }, 2)] {
        let (_proxy, mut stream) = through(faults).await;
        let began = Instant::now();
        stream.write_all(b"x").await.expect("taken");
        assert_eq!(exactly(&mut stream, 1).await, b"x");
        assert!(began.elapsed() >= A_WHILE * least, "{faults:?} took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_drip_takes_its_time_for_every_piece() {
    let drip = Some(Drip { bytes: 3, every: Duration::from_millis(20) });
    let (_proxy, mut stream) = through(down(Flow { drip, ..Flow::default() })).await;
    let began = Instant::now();
    stream.write_all(&[7; 30]).await.expect("taken");
    assert_eq!(exactly(&mut stream, 30).await, [7; 30]);
    assert!(began.elapsed() >= Duration::from_millis(9 * 20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cut_ends_the_connection_after_so_many_bytes() {
    for (end, kind) in [(End::Close, None), (End::Reset, Some(ErrorKind::ConnectionReset))] {
        let cut = Some(Cut { after_bytes: 5, end });
        let (proxy, mut stream) = through(down(Flow { cut, ..Flow::default() })).await;
        stream.write_all(b"abc").await.expect("taken");
        assert_eq!(exactly(&mut stream, 3).await, b"abc");
        stream.write_all(b"defg").await.expect("taken");
        let (got, error) = rest(&mut stream).await;
        // A reset may overtake what came before it.
        assert!(got == b"de" || (end == End::Reset && got.is_empty()), "{end:?}: {got:?}");
        assert_eq!(error, kind, "{end:?}");
        assert_eq!((proxy.counts().cuts, proxy.counts().down_bytes), (1, 5));
    }
}

#[tokio::test]
async fn a_half_close_ends_one_direction_and_leaves_the_other() {
    let (proxy, mut stream) = through(Faults::default()).await;
    stream.write_all(b"ab").await.expect("taken");
    assert_eq!(exactly(&mut stream, 2).await, b"ab");
    let cut = Some(Cut { after_bytes: 0, end: End::HalfClose });
    proxy.change(|faults| faults.down.cut = cut);
    assert_eq!(rest(&mut stream).await, (Vec::new(), None));
    stream.write_all(b"still heard").await.expect("taken");
    until(|| proxy.counts().up_bytes == 13).await;
    until(|| proxy.counts().swallowed_bytes == 11).await;
    assert_eq!(proxy.counts().cuts, 1);
}

async fn until(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it never comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn all_connections_end_on_a_word() {
    let (proxy, mut one) = through(Faults::default()).await;
    let mut two = TcpStream::connect(proxy.address()).await.expect("it listens");
    for stream in [&mut one, &mut two] {
        stream.write_all(b"x").await.expect("taken");
        exactly(stream, 1).await;
    }
    proxy.close_all();
    assert_eq!(rest(&mut one).await, (Vec::new(), None));
    assert_eq!(rest(&mut two).await, (Vec::new(), None));
    let mut three = TcpStream::connect(proxy.address()).await.expect("it listens");
    three.write_all(b"x").await.expect("taken");
    exactly(&mut three, 1).await;
    proxy.reset_all();
    assert_eq!(rest(&mut three).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(proxy.counts().cuts, 3);
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_says_nothing() {
    let faults = Faults { arrivals: Arrivals::BlackHole, ..Faults::default() };
    let (proxy, mut stream) = through(faults).await;
    stream.write_all(&[1; 1000]).await.expect("taken");
    silent(&mut stream).await;
    assert_eq!(proxy.counts().swallowed_bytes, 1000);
    assert_eq!((proxy.counts().black_holes, proxy.counts().up_bytes), (1, 0));
}

#[tokio::test]
async fn swallowed_replies_leave_the_requests_alone() {
    let flow = Flow { swallowed: true, ..Flow::default() };
    let (proxy, mut stream) = through(down(flow)).await;
    stream.write_all(b"abc").await.expect("taken");
    silent(&mut stream).await;
    assert_eq!((proxy.counts().up_bytes, proxy.counts().swallowed_bytes), (3, 3));
    proxy.set(Faults::default());
    stream.write_all(b"d").await.expect("taken");
    assert_eq!(exactly(&mut stream, 1).await, b"d", "what was swallowed stays so");
}

#[tokio::test]
async fn a_stalled_link_loses_nothing() {
    let (proxy, mut stream) = through(Faults::STALLED).await;
    stream.write_all(b"abc").await.expect("taken");
    silent(&mut stream).await;
    assert_eq!(proxy.counts().up_bytes, 0);
    proxy.set(down(Flow::STALLED));
    until(|| proxy.counts().up_bytes == 3).await;
    silent(&mut stream).await;
    proxy.set(Faults::default());
    assert_eq!(exactly(&mut stream, 3).await, b"abc");
}

#[tokio::test]
async fn who_arrives_is_refused_while_who_is_here_stays() {
    let (proxy, mut stream) = through(Faults::default()).await;
    stream.write_all(b"x").await.expect("taken");
    exactly(&mut stream, 1).await;
    proxy.change(|faults| faults.arrivals = Arrivals::Refused);
    let refused = async {
        let mut late = TcpStream::connect(proxy.address()).await?;
        late.write_all(b"x").await?;
        late.read_u8().await
    };
    assert!(refused.await.is_err());
    until(|| proxy.counts().refused == 1).await;
    stream.write_all(b"y").await.expect("taken");
    assert_eq!(exactly(&mut stream, 1).await, b"y");
}

#[tokio::test]
async fn a_target_that_is_away_resets_who_arrives_until_it_is_there() {
    let away = crate::process::free_address();
    let proxy = Proxy::start(away).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
    assert!(stream.read_u8().await.is_err());
    let listener = TcpListener::bind(away).await.expect("still free");
    let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
    let (mut target, _) = listener.accept().await.expect("a connection");
    target.write_all(b"z").await.expect("taken");
    assert_eq!(exactly(&mut stream, 1).await, b"z");
}

#[tokio::test]
async fn a_script_sees_each_request_with_its_answer_and_decides() {
    let bodies = &["first", "", "second answer", "third"];
    let proxy = Proxy::start(http(bodies).await).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let mut first = Bytes::new();
    proxy.script(move |exchange| {
        let line = (exchange.request_line().to_owned(), exchange.request_header("A").to_owned());
        let mut seen = record.lock().expect("no panic");
        seen.push((line, exchange.status, exchange.body().to_vec()));
        match seen.len() {
            1 => {
                first = exchange.answer.clone();
                Verdict::Late(A_WHILE)
            }
            2 => Verdict::Pass,
            3 => Verdict::Instead(first.clone()),
            _ => Verdict::Cut { body_bytes: 2, end: End::Close },
        }
    });
    let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
    let began = Instant::now();
    let head = |bytes: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
    for (n, answer) in ["first", "", "first"].into_iter().enumerate() {
        let request = format!("GET /{n} HTTP/1.1\r\na: {n}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let answer = head(answer.len()) + answer;
        assert_eq!(exactly(&mut stream, answer.len()).await, answer.as_bytes());
    }
    assert!(began.elapsed() >= A_WHILE, "the first came late");
    stream.write_all(b"GET /3 HTTP/1.1\r\na: 3\r\n\r\n").await.expect("taken");
    assert_eq!(rest(&mut stream).await, ((head(5) + "th").into_bytes(), None));
    let expected: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(n, body)| ((format!("GET /{n}"), n.to_string()), 200, body.as_bytes().to_vec()))
        .collect();
    assert_eq!(*seen.lock().expect("no panic"), expected);
    assert_eq!((proxy.counts().answers, proxy.counts().cuts), (4, 1));
}

#[tokio::test]
async fn an_answer_without_a_length_passes_untouched() {
    let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let target = server(move |mut stream| async move {
        stream.write_all(text).await.expect("taken");
    })
    .await;
    let proxy = Proxy::start(target).await;
    proxy.script(|_| Verdict::Cut { body_bytes: 0, end: End::Reset });
    let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
    assert_eq!(rest(&mut stream).await, (text.to_vec(), None));
    assert_eq!((proxy.counts().answers, proxy.counts().cuts), (0, 0));
}

#[tokio::test]
async fn a_tap_sees_each_directions_bytes_and_decides() {
    for (fate, end) in [
        (Fate::Swallow { after: 2 }, None),
        (Fate::Cut { after: 2, end: End::Close }, Some(None)),
        (Fate::Cut { after: 2, end: End::Reset }, Some(Some(ErrorKind::ConnectionReset))),
    ] {
        let proxy = Proxy::start(echo().await).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        proxy.tap(move |chunk| {
            let line = (chunk.connection, chunk.direction, chunk.bytes.to_vec());
            record.lock().expect("no panic").push(line);
            match chunk.bytes {
                b"cut" if chunk.direction == Direction::Down => fate.clone(),
                _ => Fate::Pass,
            }
        });
        let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
        for text in [b"one", b"cut"] {
            stream.write_all(text).await.expect("taken");
            until(|| proxy.counts().down_bytes + proxy.counts().swallowed_bytes >= 3).await;
            if text == b"one" {
                assert_eq!(exactly(&mut stream, 3).await, text);
            }
        }
        match end {
            None => {
                assert_eq!(exactly(&mut stream, 2).await, b"cu");
                stream.write_all(b"more").await.expect("taken");
                until(|| proxy.counts().swallowed_bytes == 5).await;
                silent(&mut stream).await;
            }
            Some(error) => {
                let (got, found) = rest(&mut stream).await;
                assert!(got == b"cu" || (error.is_some() && got.is_empty()), "{got:?}");
                assert_eq!(found, error);
                assert_eq!((proxy.counts().cuts, proxy.counts().swallowed_bytes), (1, 1));
            }
        }
        let up = (0, Direction::Up, b"one".to_vec());
        assert_eq!(seen.lock().expect("no panic")[..2], [up.clone(), (0, Direction::Down, up.2)]);
    }
}

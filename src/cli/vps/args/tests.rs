use super::super::{create, usage};
use super::*;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::limits::Limits;
use crate::vps::record::permit::Permit;
use crate::vps::record::policy::{Boot, Restart};

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("condo").chain(line.split(' ')))
}

fn refusal(line: &str) -> String {
    usage::problem(&parse(line).unwrap_err())
}

#[test]
fn the_tree_is_sound() {
    // clap's own check of names, conflicts and defaults.
    super::super::command().debug_assert();
}

#[test]
fn every_command_has_help_of_its_own() {
    fn check(command: &clap::Command, path: &str) {
        assert!(command.get_about().is_some(), "{path}");
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
        }
        for child in command.get_subcommands() {
            check(child, &format!("{path} {}", child.get_name()));
        }
    }
    let mut command = super::super::command();
    command.build();
    check(&command, "condo");
}

#[test]
fn only_what_is_asked_for_is_built() {
    for command in super::super::command().get_subcommands() {
        let parts = command.get_arguments().count() + command.get_subcommands().count();
        assert_eq!(parts, 0, "{}", command.get_name());
    }
}

#[test]
fn create_takes_every_limit() {
    let line = "create web --image busybox --cpus 1.5 --cpu-weight 200 --cpuset 0-1 --memory 4G --swap 1G --pids 4096 \
                --io-read 100M --io-write 50M --iops-read 2000 --iops-write 1000 --io-weight 500 --rate 100mbit --rate-out 10mbit --burst 64K --ip 10.88.0.7 --allow db,cache \
                --allow mail --permit tun,fuse --restart on-failure --autostart --boot-order 2 --network condo0 \
                --network lan,ip=10.5.0.9 --publish 53:53/udp -p 127.0.0.1:8080:80 --hostname web.example.org -e A=1 --env B=x=y --nesting --ids 131072 \
                --device kvm,/dev/dri/card0 --start";
    let Command::Create(args) = parse(line).unwrap().command else {
        panic!("not create");
    };
    assert!(args.start);
    let new = create::wanted(*args).unwrap();
    let ip = Some("10.88.0.7".parse().unwrap());
    assert_eq!((new.name.as_str(), new.wanted_ip), ("web", ip));
    let expected = VpsConfig {
        hostname: Some("web.example.org".into()),
        limits: Limits {
            cpus: Some(1.5),
            cpu_weight: Some(200),
            cpuset: Some("0-1".into()),
            memory: Some(4 << 30),
            swap: Some(1 << 30),
            pids: Some(4096),
            io_read: Some(100 << 20),
            io_write: Some(50 << 20),
            iops_read: Some(2000),
            iops_write: Some(1000),
            io_weight: Some(500),
            rate_in: Some(100_000_000),
            rate_out: Some(10_000_000),
            burst: Some(64 << 10),
        },
        env: [("A", "1"), ("B", "x=y")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        ip,
        networks: ["condo0", "lan,ip=10.5.0.9"].map(|n| n.parse().unwrap()).into(),
        allow: ["cache", "db", "mail"].map(|n| n.parse().unwrap()).into(),
        permit: [Permit::Fuse, Permit::Tun].into(),
        restart: Restart::OnFailure,
        boot: Boot {
            autostart: true,
            order: 2,
            delay: 0,
        },
        publish: ["127.0.0.1:8080:80/tcp", "53:53/udp"]
            .map(|p| p.parse().unwrap())
            .into(),
        devices: ["kvm", "/dev/dri/card0"].map(|d| d.parse().unwrap()).into(),
        nesting: true,
        ids: Some(131_072),
        ..VpsConfig::new("busybox")
    };
    assert_eq!(new.config, expected);
}

#[test]
fn a_refused_value_is_one_line_in_our_words() {
    for (line, text) in [
        ("start Web", "NAME: `Web` must begin with a lower case letter"),
        (
            "create web --image a --pids -1",
            "--pids: `-1` is not a whole number",
        ),
        (
            "create web --image a --cpus half",
            "--cpus: `half` is not a number such as 2 or 0.5",
        ),
        (
            "create web --image a --ip 10.0.0.256",
            "--ip: `10.0.0.256` is not an IPv4 address",
        ),
        (
            "create web --image a -e A",
            "--env: `A` is not of the form NAME=VALUE",
        ),
        (
            "create web --image a --permit kvm",
            "--permit: `kvm` is none of fuse, large-buffers, large-tables, packet-rings, socketcall, tun",
        ),
        ("stop web -t 1s", "--timeout: `1s` is not a whole number"),
    ] {
        assert_eq!(refusal(line), text);
    }
    assert!(refusal("create web --image a --memory 4GG").starts_with("--memory: `4GG` is not a size"));
    assert!(refusal("kill web -s NONE").starts_with("--signal: `NONE` is not a signal"));
}

#[test]
fn a_wrong_command_line_is_one_line() {
    for line in [
        "create web",
        "start",
        "frobnicate",
        "exec web ls",
        "start --all web",
        "create web --image a --dsik 1G",
        "stop web --tiemout 3",
    ] {
        let text = refusal(line);
        assert!(
            !text.is_empty() && !text.contains('\n') && !text.starts_with("error"),
            "{text}"
        );
    }
}

#[test]
fn exec_takes_options_around_the_name_and_leaves_the_commands_alone() {
    let Command::Exec(args) = parse("exec -u app web -t -w /srv -e A=b -- ls -l -t")
        .unwrap()
        .command
    else {
        panic!("not exec");
    };
    assert_eq!(args.command, ["ls", "-l", "-t"]);
    assert!(args.tty);
    assert_eq!(args.user.as_deref(), Some("app"));
    assert_eq!(args.workdir.as_deref(), Some(std::path::Path::new("/srv")));
    assert_eq!(args.env, [("A".to_owned(), "b".to_owned())]);
}

#[test]
fn targets_are_names_or_all() {
    let Command::Stop { targets, timeout } = parse("stop web db").unwrap().command else {
        panic!("not stop");
    };
    assert_eq!((targets.names.len(), targets.all, timeout), (2, false, 30));
    let Command::Delete { targets, force } = parse("delete -f --all").unwrap().command else {
        panic!("not delete");
    };
    assert!(targets.all && force && targets.names.is_empty());
    let Command::Kill { signal, .. } = parse("kill web").unwrap().command else {
        panic!("not kill");
    };
    assert_eq!(signal.as_raw(), 9);
}

#[test]
fn the_root_may_stand_before_or_behind_the_command() {
    for line in ["--root /x list --json", "list --json --root /x"] {
        let args = parse(line).unwrap();
        assert_eq!(args.root.as_deref(), Some(std::path::Path::new("/x")));
        assert!(matches!(args.command, Command::List { json: true }));
    }
}

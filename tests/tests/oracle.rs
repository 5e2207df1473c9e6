//! The uses of a recipient expression agree, over the tables of both stores. `make oracle` runs the same for longer.

use carillon_expr::Truth;
use carillon_tests::mariadb::MariaDb;
use carillon_tests::oracle::{Device, Failure, Plan, Right, Tree, Use, What, run};

#[test]
fn all_uses_of_20000_random_expressions_agree() {
    let server = MariaDb::start();
    let plan = Plan { expressions: 20_000, seed: 1, threads: 2 };
    let report =
        run(plan, &server, &|_, _, _, said| said).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{}", report.coverage());
    report.check_floors().unwrap();
    assert_eq!(report.expressions, 20_000);
    println!("{report}");
}

/// What a fault makes of an answer about an expression with a certain part.
type Fault = (Use, &'static str, fn(&Tree, &Device) -> bool, fn(Truth) -> Truth);

/// One in each use, of the sort that each is prone to.
const FAULTS: [Fault; 6] = [
    (
        Use::Evaluation,
        "a missing value is false within `between`",
        |part, _| matches!(part, Tree::Between(..)),
        |said| if said == Truth::Unknown { Truth::False } else { said },
    ),
    (
        Use::Sets,
        "`not in` finds nobody",
        |part, _| matches!(part, Tree::In(_, true, ..)),
        |said| if said == Truth::True { Truth::False } else { said },
    ),
    (
        Use::Terms,
        "who has a user is not found under `user`",
        |part, device| matches!(part, Tree::Compare(What::User, ..)) && device.row.user.is_some(),
        |said| if said == Truth::True { Truth::False } else { said },
    ),
    (
        Use::Text,
        "a span is printed with another sign",
        |part, _| matches!(part, Tree::Compare(_, _, Right::Now(..))),
        |said| !said,
    ),
    (
        Use::MariaDb,
        "points are never near",
        |part, _| matches!(part, Tree::Near(..)),
        |said| if said == Truth::True { Truth::False } else { said },
    ),
    (
        Use::Sqlite,
        "versions have no value",
        |part, _| matches!(part, Tree::Compare(What::Attribute(6 | 7), ..)),
        |_| Truth::Unknown,
    ),
];

#[test]
fn a_fault_in_any_use_is_found_shrunk_and_told() {
    let server = MariaDb::start();
    for (used, what, hits, planted) in FAULTS {
        let plan = Plan { expressions: 2_000, seed: 7, threads: 1 };
        let seam = |asked: Use, tree: &Tree, device: &Device, said: Truth| {
            let is_hit = asked == used && tree.any(&|part| hits(part, device));
            if is_hit { planted(said) } else { said }
        };
        let failure: Box<Failure> = run(plan, &server, &seam).expect_err(what);
        assert_eq!(failure.uses, [used], "{what}: {failure}");
        assert_eq!(failure.tree.size(), 1, "{what}: {failure}");
        assert_eq!(failure.devices.len(), 1, "{what}: {failure}");
        let device = &failure.devices[0].row;
        assert!(device.attributes.len() <= 1 && device.groups.is_empty(), "{what}: {failure}");
        let told = failure.to_string();
        assert!(
            told.contains(&format!("SEED={}", failure.seed)) && told.contains("<- wrong"),
            "{told}"
        );
        // The seed alone brings it back.
        let plan = Plan { expressions: failure.number as u64 + 1, seed: failure.seed, threads: 1 };
        let again = run(plan, &server, &seam).expect_err(what);
        assert_eq!(
            (again.tree, again.devices),
            (failure.tree.clone(), failure.devices.clone()),
            "{what}"
        );
        println!("{what}: {told}");
    }
}

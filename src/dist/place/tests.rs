//! Environments of launchers, and what is left of them.

use super::*;

fn place(variables: &[(&str, &str)]) -> Result<Option<Place>> {
    Place::of(|name| {
        variables
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.to_string())
    })
}

#[test]
fn torchrun_and_slurm_and_a_process_alone() {
    assert_eq!(place(&[]).unwrap(), None);
    let master = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "29500")];
    let with = |own: &[(&'static str, &'static str)]| place(&[own, &master].concat());
    let torchrun = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ("TORCHELASTIC_RESTART_COUNT", "2"),
        ("SLURM_PROCID", "0"),
    ];
    let p = with(&torchrun).unwrap().unwrap();
    assert_eq!(
        (p.rank, p.world, p.local, p.agent, p.again),
        (3, 4, 1, true, true)
    );
    let slurm = [
        ("SLURM_PROCID", "5"),
        ("SLURM_NTASKS", "16"),
        ("SLURM_LOCALID", "5"),
        ("SLURM_STEP_ID", "0"),
    ];
    let p = with(&slurm).unwrap().unwrap();
    assert_eq!((p.rank, p.world, p.local, p.agent), (5, 16, 5, false));
    assert!(!p.again);
    // A shell in a job that asked for many tasks is not one of them.
    assert_eq!(with(&slurm[..3]).unwrap(), None);
}

#[test]
fn a_shell_inside_a_job_waits_for_nobody() {
    let master = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "29500")];
    let job = [
        ("SLURM_PROCID", "0"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_NTASKS", "4"),
        ("SLURM_NPROCS", "4"),
    ];
    for step in [
        // salloc with use_interactive_step, older and newer; a batch script; `srun -n 1 --pty bash`.
        &[("SLURM_STEP_ID", "4294967290"), ("SLURM_STEP_NUM_TASKS", "1")][..],
        &[("SLURM_STEPID", "4294967290")],
        &[("SLURM_STEP_ID", "4294967291")],
        &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1")],
        &[],
    ] {
        let all = [&job[..], step, &master].concat();
        assert_eq!(place(&all).unwrap(), None, "{step:?}");
        assert!(note_alone(|n| all.iter().find(|(k, _)| *k == n).map(|(_, v)| v.to_string())).is_some());
    }
    // A step of fewer tasks than the job.
    let step = [("SLURM_STEP_ID", "3"), ("SLURM_STEP_NUM_TASKS", "2")];
    let p = place(&[&job[..], &step, &master].concat()).unwrap().unwrap();
    assert_eq!((p.rank, p.world), (0, 2));
}

#[test]
fn mpis_ranks_are_ranks() {
    let master = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "29500")];
    // MPI's helpers are Slurm tasks themselves.
    let helper = [
        ("SLURM_PROCID", "0"),
        ("SLURM_STEP_ID", "0"),
        ("SLURM_STEP_NUM_TASKS", "2"),
    ];
    for (name, variables) in [
        (
            "OMPI_COMM_WORLD_RANK",
            &[
                ("OMPI_COMM_WORLD_RANK", "3"),
                ("OMPI_COMM_WORLD_SIZE", "4"),
                ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ][..],
        ),
        (
            "PMI_RANK",
            &[
                ("PMI_RANK", "3"),
                ("PMI_SIZE", "4"),
                ("MPI_LOCALRANKID", "1"),
                ("PMIX_RANK", "3"),
            ],
        ),
        (
            "PMI_RANK",
            &[("PMI_RANK", "3"), ("PMI_SIZE", "4"), ("PMI_LOCAL_RANK", "1")],
        ),
        (
            "MV2_COMM_WORLD_RANK",
            &[
                ("MV2_COMM_WORLD_RANK", "3"),
                ("MV2_COMM_WORLD_SIZE", "4"),
                ("MV2_COMM_WORLD_LOCAL_RANK", "1"),
                ("LOCAL_WORLD_SIZE", "2"),
            ],
        ),
        (
            "JSM_NAMESPACE_RANK",
            &[
                ("JSM_NAMESPACE_RANK", "3"),
                ("JSM_NAMESPACE_SIZE", "4"),
                ("LOCAL_RANK", "1"),
                ("LOCAL_WORLD_SIZE", "2"),
                ("WORLD_SIZE", "4"),
            ],
        ),
    ] {
        let p = place(&[variables, &helper, &master].concat()).unwrap().unwrap();
        assert_eq!((p.rank, p.world, p.local), (3, 4, 1), "{name}");
        let e = place(&[variables, &helper].concat()).unwrap_err().to_string();
        assert!(
            e.contains("MASTER_ADDR: expected rank 0's host, found nothing"),
            "{e}"
        );
        assert!(e.contains(&format!("{name}=3")), "{e}");
    }
    // A scheduler starts single processes so, too.
    for alone in [
        &[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")][..],
        &[("PMI_RANK", "0"), ("PMI_SIZE", "1")],
        &[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "1")],
        &[("RANK", "0"), ("WORLD_SIZE", "1")],
        &[("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")],
        &[
            ("WORLD_SIZE", "1"),
            ("LOCAL_RANK", "0"),
            ("LOCAL_WORLD_SIZE", "1"),
        ],
        &master,
    ] {
        assert_eq!(place(alone).unwrap(), None, "{alone:?}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    for (variables, expected) in [
        (
            &[("RANK", "0"), ("WORLD_SIZE", "2")][..],
            "MASTER_ADDR: expected rank 0's host",
        ),
        (
            &[("RANK", "2"), ("WORLD_SIZE", "2")],
            "WORLD_SIZE: expected a number above RANK=2, found `2`",
        ),
        (&[("RANK", "x")], "RANK: expected a number"),
        (
            &[("RANK", "1")],
            "WORLD_SIZE: expected a number above RANK=1, found nothing",
        ),
        (&[("WORLD_SIZE", "4")], "WORLD_SIZE=4 is set, but not RANK"),
        (&[("LOCAL_RANK", "0")], "LOCAL_RANK=0 is set, but not RANK"),
        (
            &[("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "2")],
            "LOCAL_WORLD_SIZE=2 is set, but not RANK",
        ),
        (&[("PMIX_RANK", "0")], "PMIX_RANK=0 is set, but not RANK"),
        (
            &[("OMPI_COMM_WORLD_RANK", "1")],
            "OMPI_COMM_WORLD_SIZE: expected a number above OMPI_COMM_WORLD_RANK=1, found nothing",
        ),
        (
            &[("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("WORLD_SIZE", "4")],
            "WORLD_SIZE: expected 2, as MPI (PMI) says in PMI_SIZE, found `4`",
        ),
        (
            &[
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "h"),
                ("MASTER_PORT", "0"),
            ],
            "MASTER_PORT: expected a port of rank 0's host, found `0`",
        ),
        (
            &[
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "h"),
                ("MASTER_PORT", "99999"),
            ],
            "MASTER_PORT: expected a number to 65535",
        ),
    ] {
        let e = place(variables).unwrap_err();
        assert!(e.to_string().contains(expected), "{e}");
        assert_eq!(e.exit_code(), 11);
    }
}

#[test]
fn only_an_address_that_nobody_else_can_reach_is_this_machines_own() {
    let at = |host: &str| Place {
        rank: 0,
        world: 2,
        local: 0,
        host: host.into(),
        port: 1,
        agent: false,
        again: false,
    };
    for host in ["localhost", "Localhost", "127.0.0.1", "127.1.2.3", "::1"] {
        assert!(at(host).loopback().is_some(), "{host}");
    }
    for host in ["n1", "10.0.0.1", "0.0.0.0", "::", "localhost.example"] {
        assert_eq!(at(host).loopback(), None, "{host}");
    }
}

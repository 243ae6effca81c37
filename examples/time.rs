use af2::model::{htsat::*, params::*};
use tch::*;
fn main() {
    for (e, depths, heads) in [(16, vec![2,2,2,2], vec![2,4,4,8]), (16, vec![1,1,2,2], vec![2,2,4,4])] {
        let store = Store::new(Origin::Fresh, Device::Cpu);
        let c = Config { embed_dim: e, depths: depths.clone(), num_heads: heads, class_num: 16 };
        let h = Htsat::new(&store.root(), &c);
        let (p, _) = store.finish().unwrap();
        let mel = Tensor::randn([16, 1001, 64], (Kind::Float, Device::Cpu));
        for _ in 0..2 { no_grad(|| h.forward_windows(&mel, TrainMode::default())); }
        let t = std::time::Instant::now();
        for _ in 0..3 { no_grad(|| h.forward_windows(&mel, TrainMode::default())); }
        let f = t.elapsed().as_secs_f64() / 48.0;
        p.train_only(|_| true);
        for _ in 0..3 {
        let t = std::time::Instant::now();
        let y = h.forward_windows(&mel, TrainMode{batch_norm:true,..Default::default()}).sum(Kind::Float);
        let f2 = t.elapsed().as_secs_f64() / 16.0;
        y.backward();
        println!("{e} {depths:?}: fwd {:.1} ms/window, train fwd {:.1} fwd+bwd {:.1} ms/window, params {}", f * 1e3, f2*1e3, t.elapsed().as_secs_f64() / 16.0 * 1e3, p.count());
        }
    }
}

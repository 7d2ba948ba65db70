"""Draft."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from converter.methods.judging.output_change import output_change
from converter.methods.q_hyvit.sigmoid_search import approximation_hook
from converter.plan.constants import codes_from_text, codes_to_text
from converter.plan.records import Plan, approximations_of
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.curvature import backward
from converter.torch_backend.network import Step, run, run_samples

Tensor = torch.Tensor


@dataclass
class Settings:
    steps: int = 300
    batch: int = 8
    lr_w: float = 0.01
    lr_s: float = 0.003
    lr_b: float = 0.01
    lr_a: float = 0.01
    drop: float = 0.5
    feature: float = 1.0
    augment: bool = True
    mixup: bool = False
    held: int = 8
    every: int = 25
    lr_end: float = 0.02
    last: int = 0
    shrink: float = 0.5


def ste_round(x: Tensor) -> Tensor:
    return x + (torch.round(x) - x).detach()


class FakeQuant(torch.autograd.Function):
    """Learned step size and offset."""

    @staticmethod
    def forward(x, s, z, qmin, qmax):
        zero = torch.clamp(torch.round(z), qmin, qmax)
        t = x / s
        q = torch.round(t).clamp_(qmin - zero, qmax - zero)
        return q * s, t, q, zero

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, s, z, qmin, qmax = inputs
        _, t, q, zero = output
        ctx.mark_non_differentiable(t, q, zero)
        ctx.save_for_backward(t, q, s, zero)
        ctx.limits = qmin, qmax

    @staticmethod
    def backward(ctx, g, *_):
        t, q, s, zero = ctx.saved_tensors
        inside = (t - q).abs() <= 0.5
        gi = g * inside
        gs = ((g * q).sum() - (gi * t).sum())
        gz = -(g - gi).sum() * s
        return gi, gs, gz, None, None

    @staticmethod
    def vmap(info, in_dims, x, s, z, qmin, qmax):
        assert in_dims[1] is None and in_dims[2] is None
        d = in_dims[0]
        return FakeQuant.apply(x, s, z, qmin, qmax), (d, d, d, None)


def learn(context: AnalysisContext, plan: Plan, st: Settings, log=print, state=None):
    net = context.network
    steps = {s.name: s for s in net.steps}
    approximated = approximation_hook(approximations_of(plan))
    wq, scales, biases = {}, {}, {}
    bias0 = {}
    for name in context.weights:
        op = plan.ops[name]
        if 1 not in op.constants:
            continue
        step = steps[name]
        w = net.constants[step.inputs[1]]
        grid = op.constants[1]
        s_np, _ = grid.per_channel(w.ndim)
        s = torch.from_numpy(s_np.copy())
        codes = torch.from_numpy(codes_from_text(op.codes, tuple(w.shape)).astype(np.float32)) if op.codes else torch.clamp(torch.round(w / s), grid.qmin, grid.qmax)
        latent = codes + st.shrink * torch.clamp(w / s - codes, -0.5, 0.5)
        wq[name] = latent.clone().requires_grad_()
        scales[name] = torch.zeros_like(s).requires_grad_()
        if len(step.inputs) > 2 and step.inputs[2] and step.inputs[2] in net.constants:
            b = torch.tensor(op.bias, dtype=torch.float32) if op.bias else net.constants[step.inputs[2]].clone()
            bias0[name] = b
            biases[name] = torch.zeros_like(b).requires_grad_()
    base_s = {n: torch.from_numpy(plan.ops[n].constants[1].per_channel(wq[n].ndim)[0].copy()) for n in wq}
    act_s, act_z = {}, {}
    grids = {n: t.params for n, t in plan.tensors.items() if t.params is not None}
    for n in sorted({e.owner for e in context.quantized_edges.values()}):
        if n in grids and plan.tensors[n].kind == "measured" and grids[n].bits < 8 and grids[n].axis is None:
            act_s[n] = torch.zeros(()).requires_grad_()
            act_z[n] = torch.zeros(()).requires_grad_()
    log(f"{len(wq)} layers {len(biases)} biases {len(act_s)} activation grids of {len(grids)}")
    outs = run_samples(net, {n: v[:4] for n, v in context.feed.items()}, wanted=[steps[n].outputs[0] for n in bias0])
    units = {n: outs[steps[n].outputs[0]].std() for n in bias0}
    del outs

    def bias_unit(n):
        return units[n]

    def weights():
        out = {}
        for n, v in wq.items():
            g = plan.ops[n].constants[1]
            out[n] = torch.clamp(ste_round(v), g.qmin, g.qmax) * (base_s[n] * torch.exp(scales[n]))
        return out

    def act(n, x, factor, live):
        g = grids[n]
        s0, z0 = g.scale[0] * factor, g.zero_point[0]
        if n in act_s and live:
            return FakeQuant.apply(x, s0 * torch.exp(act_s[n]), z0 + act_z[n], g.qmin, g.qmax)[0]
        if n in act_s:
            s, z = s0 * torch.exp(act_s[n]), torch.clamp(ste_round(z0 + act_z[n]), g.qmin, g.qmax)
        else:
            s, z = s0, z0
        return (torch.clamp(ste_round(x / s) + z, g.qmin, g.qmax) - z) * s

    def hook_of(W, drop, live=False):
        def hook(step: Step, index: int, value: Tensor) -> Tensor:
            if index == 1 and step.name in W:
                return W[step.name]
            if index == 2 and step.name in biases:
                return bias0[step.name] + biases[step.name] * bias_unit(step.name)
            e = context.quantized_edges.get((step.name, index))
            if e is not None and e.owner in grids and not (live and grids[e.owner].bits >= 8):
                q = act(e.owner, value, e.factor, live)
                if drop and grids[e.owner].bits < 8:
                    q = torch.where(torch.rand_like(value) < drop, value, q)
                value = q
            return approximated(step, index, value)
        return hook

    def batched(feed, wanted, hook):
        return torch.func.vmap(lambda s: run(net, s, wanted=wanted, hook=hook), randomness="different")(feed)

    feed = context.feed
    total = next(iter(feed.values())).shape[0]
    held = min(st.held, total // 3)
    train = {n: v[: total - held] for n, v in feed.items()}
    test = {n: v[total - held :] for n, v in feed.items()}
    if st.augment and all(v.is_floating_point() and v.ndim == 5 for v in feed.values()):
        def more(v):
            h, w = v.shape[-2:]
            return torch.cat([v, v.flip(-1), torch.roll(v, (h // 10, -w // 10), (-2, -1)), torch.roll(v.flip(-1), (-h // 10, w // 10), (-2, -1))])
        test = {n: more(v) for n, v in test.items()}
    with torch.no_grad():
        wanted_test = run_samples(net, test)

    def judge():
        with torch.no_grad():
            got = run_samples(net, test, hook=hook_of(weights(), 0.0))
        return output_change(wanted_test, got, context.losses)

    # feature points
    points = []
    if st.feature:
        produced = {o: s for s in net.steps for o in s.outputs}
        points = [s.outputs[0] for s in net.steps if s.op_type == "Add" and all(i not in net.constants for i in s.inputs)]
        points = [p for p in points if p not in net.outputs]
        if len(points) < 4:
            points = [s.outputs[0] for s in net.steps if s.name in wq][::2]
        small = {n: v[:8] for n, v in train.items()}
        squares: dict[str, Tensor] = {}
        for start in range(0, 8, net.chunk):
            chunk = {n: v[start : start + net.chunk] for n, v in small.items()}
            _, fisher = backward(net, [], chunk, context.losses, points, 4, torch.Generator().manual_seed(start))
            for n, f in fisher.items():
                axis = 2 if f.ndim == 5 else f.ndim - 1
                m = f.mean([d for d in range(f.ndim) if d != axis], keepdim=True)[0] * (net.chunk / 8)
                squares[n] = squares.get(n, 0) + m
        log(f"{len(points)} points")

    def loss_of(real, got):
        total_loss = torch.zeros(())
        for n, l in context.losses.items():
            if l.counts_scores:
                p, q = (functional.log_softmax(x[n].movedim(l.axis, -1), -1) for x in (real, got))
                total_loss = total_loss + l.score_weight * (p.exp() * (p - q)).sum(-1).mean()
            if l.counts_values:
                e = (real[n] - got[n]).square()
                total_loss = total_loss + l.value_weight * e.mean() / (sum(l.powers) / len(l.powers) if l.powers else 1.0)
        out = total_loss
        feats = torch.zeros(())
        for n in points:
            feats = feats + 0.5 * ((real[n] - got[n]).square() * squares[n]).sum() / real[n].shape[0]
        if points:
            total_loss = total_loss + st.feature * feats / len(points)
        return total_loss, float(out.detach()), float(feats.detach()) / max(1, len(points))

    opt = torch.optim.Adam([
        {"params": list(wq.values()), "lr": st.lr_w, "base": st.lr_w},
        {"params": list(scales.values()), "lr": st.lr_s, "base": st.lr_s},
        {"params": list(biases.values()), "lr": st.lr_b, "base": st.lr_b},
        {"params": [*act_s.values()], "lr": st.lr_a, "base": st.lr_a},
        {"params": [*act_z.values()], "lr": st.lr_a * 5, "base": st.lr_a * 5},
    ], betas=(0.9, 0.99))
    opt.param_groups[:] = [g for g in opt.param_groups if g["params"]]
    opt.param_groups[:] = [g for g in opt.param_groups if g["base"] > 0]
    params = [p for g in opt.param_groups for p in g["params"]]
    torch.manual_seed(context.seed)
    gen = torch.Generator().manual_seed(context.seed)
    best, best_state = judge(), None
    log(f"start held-out {best:.4f}")
    images = st.augment and all(v.is_floating_point() and v.ndim == 5 for v in feed.values())
    begun = time.process_time()
    run_loss = run_feat = 0.0
    for it in range(st.steps):
        part = 0.5 * (1 + np.cos(np.pi * it / st.steps)) * (1 - st.lr_end) + st.lr_end
        for g in opt.param_groups:
            g["lr"] = g["base"] * part
        pick = torch.randperm(total - held, generator=gen)[: st.batch]
        batch = {n: v[pick] for n, v in train.items()}
        if images:
            for n, v in batch.items():
                if torch.rand((), generator=gen) < 0.5:
                    v = v.flip(-1)
                h, w = v.shape[-2:]
                dy, dx = (int(torch.randint(-(d // 8), d // 8 + 1, (), generator=gen)) for d in (h, w))
                v = torch.roll(v, (dy, dx), (-2, -1))
                if st.mixup:
                    lam = torch.rand(v.shape[0], 1, 1, 1, 1, generator=gen) * 0.5
                    v = v * (1 - lam) + v.flip(0) * lam
                batch[n] = v
        names = [*net.outputs, *points]
        with torch.no_grad():
            real = batched(batch, names, None)
        got = batched(batch, names, hook_of(weights(), st.drop, True))
        loss, out, feat = loss_of(real, got)
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        for p, g in zip(params, grads):
            p.grad = None if g is None else torch.nan_to_num(g, 0.0, 0.0, 0.0)
        opt.step()
        run_loss += out
        run_feat += feat
        if (it + 1) % st.every == 0:
            now = judge()
            log(f"{it + 1}: train {run_loss / st.every:.4f} features {run_feat / st.every:.4f} held-out {now:.4f}  {time.process_time() - begun:.0f} s")
            run_loss = run_feat = 0.0
            if now < best:
                best = now
                best_state = [p.detach().clone() for p in params]
    if best_state is None and not st.last:
        log("kept the old plan")
        return plan
    if st.last:
        best_state = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, v in zip(params, best_state):
            p.copy_(v)
        ops, tensors = dict(plan.ops), dict(plan.tensors)
        flips = 0
        for n in wq:
            g = plan.ops[n].constants[1]
            codes = torch.clamp(torch.round(wq[n]), g.qmin, g.qmax).to(torch.int8)
            scale = (base_s[n] * torch.exp(scales[n])).flatten()
            g2 = replace(g, scale=tuple(float(np.float32(x)) for x in scale))
            b = tuple(float(x) for x in bias0[n] + biases[n] * bias_unit(n)) if n in biases else plan.ops[n].bias
            ops[n] = replace(ops[n], codes=codes_to_text(codes.numpy()), constants={**ops[n].constants, 1: g2}, bias=b)
        changed = {}
        for n in act_s:
            g = grids[n]
            changed[n] = replace(g, scale=(float(np.float32(g.scale[0] * float(torch.exp(act_s[n])))),), zero_point=(int(torch.clamp(torch.round(g.zero_point[0] + act_z[n]), g.qmin, g.qmax)),))
        for n, t in plan.tensors.items():
            if n in changed:
                tensors[n] = replace(t, params=changed[n])
        # shared, derived
        for _ in range(50):
            for n, t in list(tensors.items()):
                if t.source and t.params is not None and t.source in tensors:
                    src = tensors[t.source].params
                    old_src = plan.tensors[t.source].params
                    if src != old_src:
                        if t.kind == "shared" and plan.tensors[n].params == old_src:
                            tensors[n] = replace(t, params=src)
                        elif t.kind == "derived":
                            f = plan.tensors[n].params.scale[0] / old_src.scale[0]
                            tensors[n] = replace(t, params=replace(src.rescaled(f), zero_point=src.zero_point))
    return plan.with_ops(tensors, ops)

"""Small programs in HLO, whose numbers can be counted by hand."""

# ruff: noqa: E501 (an instruction is one line)

LOOP = """HloModule jit_f, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%body (q: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %g0 = s32[]{:T(128)} get-tuple-element(%q), index=0
  %g1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%q), index=1
  %m = f32[8,128]{1,0:T(8,128)} multiply(%g1, %g1), metadata={op_name="jit(f)/while/body/mul"}, backend_config={"window_config":{"estimated_cycles":"1826","x":["1"]}}
  %r = f32[8,128]{1,0:T(8,128)} all-reduce(%m), channel_id=1, replica_groups=mesh['data'=4,'fsdp'=2] {'fsdp'}, to_apply=%sum
  %one = s32[]{:T(128)} constant(1)
  %n = s32[]{:T(128)} add(%g0, %one)
  ROOT %u = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%n, %r)
}

%condition (q2: (s32[], f32[8,128])) -> pred[] {
  %q2 = (s32[], f32[8,128]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(12)
  %g2 = s32[] get-tuple-element(%q2), index=0
  ROOT %lt = pred[] compare(%g2, %limit), direction=LT
}

ENTRY %main (p: f32[8,128]) -> (s32[], f32[8,128]) {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[8,128]{1,0}) tuple(%zero, %p)
  ROOT %w = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) while(%t), condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
}
"""
"""A loop of 12 rounds, in each a product of 1,826 cycles and a reduction of 4,096 bytes between pairs of 8 chips."""

SPLIT = """HloModule jit_g, is_scheduled=true

%sum (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %s = bf16[] add(%a, %b)
}

%products (p0: bf16[1024,512], p1: bf16[512,256]) -> bf16[1024,256] {
  %p0 = bf16[1024,512]{1,0} parameter(0)
  %p1 = bf16[512,256]{1,0} parameter(1)
  ROOT %d = bf16[1024,256]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%slices (c0: f32[24,1000], c1: s32[]) -> f32[1,1000] {
  %c0 = f32[24,1000]{1,0} parameter(0)
  %c1 = s32[] parameter(1)
  ROOT %ds = f32[1,1000]{1,0} dynamic-slice(%c0, %c1, %c1), dynamic_slice_sizes={1,1000}
}

%updates (e0: f32[24,1000], e1: f32[1,1000], e2: s32[]) -> f32[24,1000] {
  %e0 = f32[24,1000]{1,0} parameter(0)
  %e1 = f32[1,1000]{1,0} parameter(1)
  %e2 = s32[] parameter(2)
  ROOT %du = f32[24,1000]{1,0} dynamic-update-slice(%e0, %e1, %e2, %e2)
}

ENTRY %main (x: bf16[1024,512], y: bf16[512,256], stack: f32[24,1000], i: s32[]) -> f32[24,1000] {
  %x = bf16[1024,512]{1,0} parameter(0)
  %y = bf16[512,256]{1,0} parameter(1)
  %stack = f32[24,1000]{1,0} parameter(2)
  %i = s32[] parameter(3)
  %start = (bf16[512,256]{1,0}, bf16[512,256]{1,0}) all-reduce-start(%y), replica_groups=[2,8]<=[16], to_apply=%sum
  %product = bf16[1024,256]{1,0} fusion(%x, %y), kind=kCustom, calls=%products, metadata={op_name="jit(train_step)/jvp(Network)/encoder/while/body/layers/FeedForward/dot_general"}
  %done = bf16[512,256]{1,0} all-reduce-done(%start)
  %gathered = bf16[4096,256]{1,0} all-gather(%y), replica_groups={{0,2,4,6,8,10,12,14},{1,3,5,7,9,11,13,15}}, dimensions={0}
  %slice = f32[1,1000]{1,0} fusion(%stack, %i), kind=kLoop, calls=%slices
  ROOT %update = f32[24,1000]{1,0} fusion(%stack, %slice, %i), kind=kLoop, calls=%updates
}
"""
"""A reduction with a product between its start and its end, then a gathering, a slice of a stack and its update."""

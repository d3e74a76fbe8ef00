from experiment_scripts import script_module

CODE = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%small (p: f32[8]) -> f32[8] {
  ROOT %all-reduce.1 = f32[8]{0} all-reduce(%p), replica_groups={}, to_apply=%sum
}

%large (p: f32[8]) -> f32[8] {
  ROOT %all-gather.1 = bf16[8,3]{1,0:T(8,128)} all-gather(%p), dimensions={0}
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %chosen = f32[8] conditional(%i, %p, %p), branch_computations={%small, %large}
  %both = (f32[4]{0}, pred[2]{0}) all-reduce(%x, %y), to_apply=%sum
}

%other (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %start = f32[5]{0} all-reduce-start(%x), to_apply=%sum
  %done = f32[5]{0} all-reduce-done(%start)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %again = (s32[], f32[8]) while(%t), condition=%c, body=%other, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_collectives_count_with_the_loops_that_they_are_in_and_of_branches_the_larger_one():
    with script_module("scaling_of_training") as script:
        counts, sizes = script.collectives(CODE)
    assert counts == {"all-gather": 3, "all-reduce": 3 + 7}
    assert sizes == {"all-gather": 3 * 48, "all-reduce": 3 * (16 + 2) + 7 * 20}

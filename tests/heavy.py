"""Quick tests that became slow ones: what takes more than some seconds, most of it to compile.

Each entry is the beginning of a test's name below tests/. What stays in the quick suite tests the same code
on fewer networks, activations or seeds. `make slow` runs these.
"""

HEAVY = (
    # Every fixture; the quick suite keeps those that no other program wrote, and each kind elsewhere.
    "cli/test_inspect.py::test_every_file_is_read_or_refused_in_one_line[foreign_",
    "cli/test_inspect.py::test_every_file_is_read_or_refused_in_one_line[state_",
    "cli/test_inspect.py::test_a_spec_is_found_by_the_shapes_of_its_arrays[resnet20,",
    "cli/test_inspect.py::test_a_spec_is_found_by_the_shapes_of_its_arrays[pre-activation",
    # Every network by every solver; the quick suite keeps `FEW` of them and the stored tickets.
    *(
        f"construction/test_fold.py::test_the_ticket_computes_the_sum_that_it_claims[{name}-"
        for name in (
            *("option A", "projection", "weights on the skip", "pre-activation, projection, random"),
            *("dense block, projection", "dense block, weights", "dense block, random", "option A, random"),
            *("strided", "convolution last"),
        )
    ),
    "construction/test_fold.py::test_the_ticket_computes_the_sum_that_it_claims[projection, random-",
    "construction/test_fold.py::test_the_ticket_computes_the_sum_that_it_claims[pooled-",
    "construction/test_fold.py::test_the_ticket_computes_the_sum_that_it_claims[pre-activation-",
    "construction/test_fold.py::test_the_ticket_computes_the_sum_that_it_claims[one axis-compensated",
    "construction/test_fold.py::test_many_copies_leave_a_small_error[one axis]",
    "construction/test_wrong_arguments.py::test_what_looks_wrong_and_is_not",
    "construction/test_other_sources.py::test_tickets_of_unusual_blocks_compute_their_targets",
    "construction/test_other_sources.py::test_no_mask_keeps_a_weight_that_is_absent",
    "construction/test_solvers.py::test_each_weight_has_exactly_so_many_and_the_best_of_them",
    "construction/test_compensated.py::test_compensation_beats_independent_choices",
    *(
        f"construction/test_univariate.py::test_a_ticket_of_every_smooth_activation_computes_its_target[{name}"
        for name in ("elu", "gelu", "softplus", "sigmoid-residual", "tanh-residual")
    ),
    "test_compact.py::test_a_compact_ticket_gives_the_ticket_s_outputs[strided]",
    "test_compact.py::test_a_compact_ticket_gives_the_ticket_s_outputs[option A]",
    "interop/test_files.py::test_the_published_mnist_network_with_leaky_relu",
    "interop/test_from_jax_groups.py::test_a_net_of_linen",
    "subset_sum/test_large.py::test_finds_a_planted_subset[32]",
    "subset_sum/test_solve.py::test_one_problem_eager_jit_and_vmap_agree_with_the_batch[quadratic-7]",
    "certificate/test_mixed.py::test_certificates_of_constructed_tickets_hold[another in the block",
    "certificate/test_prove.py::test_no_input_exceeds_the_bound[5",
    "experiments/test_sweeps.py::test_depth_has_the_errors_of_every_layer",
    *(
        f"export/test_export.py::test_a_ticket_as_{form}[{name}"
        for form in ("onnx", "a_module_of_pytorch")
        for name in ("plain, hwc", "one axis", "projection, random", "sigmoid", "groups, 2L")
    ),
    "nn/test_fold.py::test_folding_changes_no_output[projection]",
    "construction/test_fold.py::test_compensated_tickets_of_residual_networks_are_near",
    "construction/test_fold.py::test_many_copies_leave_a_small_error[strided]",
    *(
        f"construction/test_two_layers.py::test_tickets_compute_their_targets[{name}"
        for name in (
            "option A",
            "projection",
            "weights",
            "pre-activation",
            "dense block,",
            "strided",
            "pooled",
        )
    ),
    "construction/test_two_layers.py::test_one_variable_a_weight_needs_many",
    "construction/test_two_layers.py::test_other_ways_to_choose",
    "construction/test_univariate.py::test_rows_compensate_about_means_with_biases_of_every_layer",
    "construction/test_mixed_activations.py::test_other_mixtures_compute_their_targets[inside",
    "construction/test_mixed_activations.py::test_other_mixtures_compute_their_targets[pooling",
    "nn/test_prune.py::test_pruning_keeps_the_outputs_and_only_what_they_depend_on[0.15",
    "construction/test_resume.py::test_nodes_of_another_construction_are_not_taken_over[fewer images]",
    *(
        f"construction/test_stored_tickets.py::test_the_bits_of_a_ticket_do_not_change[{name}"
        for name in ("flattened, robust", "carried", "dense, 2L")
    ),
    "certificate/test_prove.py::test_no_input_exceeds_the_bound[15",
    "certificate/test_prove.py::test_no_input_exceeds_the_bound[9",
    "certificate/test_mixed.py::test_certificates_of_constructed_tickets_hold[two layers",
    "certificate/test_mixed.py::test_certificates_of_constructed_tickets_hold[the other order",
    "experiments/test_certificates.py::test_bounds_by_width_and_objective",
    "experiments/test_certificates.py::test_a_bound_that_an_error_exceeds_fails_the_run_and_leaves_its_files",
    "experiments/test_sweeps.py::test_width_has_a_point_for_each_solver_and_multiplicity",
    "experiments/test_ticket.py::test_the_same_run_elsewhere_gives_equal_bytes",
    "experiments/test_ticket.py::test_scales_read_off_the_target_are_said_to_be",
    "experiments/test_subset_sum.py::test_leaves_a_complete_folder_and_skips_it_next_time",
    "nn/test_fold.py::test_folding_changes_no_output[option A]",
    "nn/test_describe.py::test_bent_lines_are_described",
    "subset_sum/test_devices.py::test_four_devices_give_the_same_bits",
    "subset_sum/test_solve.py::test_one_problem_eager_jit_and_vmap_agree_with_the_batch[smallest-7]",
    "subset_sum/test_solve.py::test_one_problem_eager_jit_and_vmap_agree_with_the_batch[robust-7]",
    "test_front_door.py::test_the_program_needs_no_number[tanh]",
    "test_front_door.py::test_the_program_needs_no_number[gelu]",
    "test_train.py::test_the_embedded_targets_are_good",
    "test_train.py::test_a_seed_gives_the_same_parameters_and_another_seed_others",
    "test_train.py::test_predictions_do_not_depend_on_the_batch",
)

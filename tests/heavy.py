"""Quick tests that became slow ones: what takes more than some seconds, most of it to compile.

What stays in the quick suite tests the same code on fewer networks, activations or seeds. `make slow` runs
the others.
"""

QUICK = {
    "certificate/test_mixed.py::test_certificates_of_constructed_tickets_hold": (
        "pooled first-2L",
        "pooled last-L+1",
    ),
    "certificate/test_mixed.py::test_theorem_2_guarantees_what_constructed_tickets_reach": (
        "two layers",
        "sigmoid last",
        "pooled last",
    ),
    "certificate/test_prove.py::test_no_input_exceeds_the_bound": ("3-kinds5", "6-kinds0-L+1"),
    "certificate/test_theorem.py::test_a_ticket_within_its_budgets_is_within_epsilon": (
        "vectors",
        "dense block",
    ),
    "certificate/test_theorem.py::test_offsets_and_means_that_constants_carry_are_counted": ("leaky", "relu"),
    "coding/test_reader.py::test_a_reader_of_the_page_computes_the_same": ("clipped", "conv", "groups, 2L"),
    "construction/test_blocks_of_published_networks.py::test_tickets_compute_their_targets": (
        "ends in a pool",
        "ends in an activation-2L-random",
    ),
    "construction/test_clipped.py::test_tickets_clip_where_their_targets_do": ("hard_sigmoid",),
    "construction/test_groups_and_joins.py::test_the_ticket_is_the_masked_source_and_near_its_target": (
        "groups last",
        "fire",
        "vectors",
        "depthwise-2L",
    ),
    "construction/test_means.py::test_copies_have_the_means_of_their_channels": ("leaky_relu",),
    "construction/test_mixed_activations.py::test_compact_tickets_of_mixtures_are_the_tickets": (
        "inside a block, ReLU-L+1",
        "inside a block, tanh-2L",
    ),
    "construction/test_pools_of_published_networks.py::test_tickets_compute_their_targets": (
        "global max-2L",
    ),
    "construction/test_resume.py::test_a_broken_construction_goes_on_with_the_same_bits": (
        "measured",
        "best-pooled",
    ),
    "construction/test_rounded.py::test_every_mask_is_one_of_whole_numbers": (
        "one layer",
        "flat images",
    ),
    "construction/test_rounded.py::test_more_bits_are_nearer_whatever_the_activation": ("identity",),
    "construction/test_two_layers.py::test_a_layer_is_within_the_bound_of_what_its_sums_miss": (
        "relu",
        "silu",
        "hard_tanh",
    ),
    "construction/test_two_layers.py::test_tickets_compute_their_targets": (
        "flat images",
        "vectors",
        "one layer",
    ),
    "construction/test_univariate.py::test_a_ticket_of_every_smooth_activation_computes_its_target": (
        "tanh-plain",
        "silu-residual",
        "relu6-residual",
        "hard_swish-residual",
    ),
    "interop/test_files.py::test_published_networks": ("mlperf", "sigmoid"),
    "pruning/test_searches.py::test_each_search_finds_what_is_better_than_chance": (
        "edge-popup]",
        "gem-miner",
    ),
    "pruning/test_searches.py::test_edge_popups_gradient_is_the_straight_through_formula": ("|s|", "signs"),
    "test_compact.py::test_a_compact_ticket_gives_the_ticket_s_outputs": (
        "dense block",
        "blocks on one axis",
    ),
    "test_ticket.py::test_every_named_spec_survives_json": (
        "digits",
        "resnet20",
        "squeezenet",
        "mobilenet",
        "m5",
    ),
}
"""Cases, by how their names begin, that the quick suite keeps of tests below tests/. The others are slow."""

HEAVY = (
    # Processes of their own; the quick suite runs the same code in its own process.
    "experiments/test_command_line.py::test_settings_of_jax_change_no_bit",
    "experiments/test_targets.py::test_a_ticket_of_a_foreign_checkpoint_from_the_command_line",
    "experiments/test_targets.py::test_a_file_that_says_its_network_needs_no_spec",
    "construction/test_rounded.py::test_regression_is_that_of_the_samples",
    "pruning/test_searches.py::test_the_result_has_one_gain_a_layer_and_the_masks_statistics",
    "subset_sum/test_theory.py::test_failure_of_the_slide[15-uniform",
    "test_compact.py::test_channels_that_are_left_have_a_gradient",
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
    "interop/test_files.py::test_the_published_mnist_network_with_leaky_relu",
    "interop/test_from_jax_groups.py::test_a_net_of_linen",
    "subset_sum/test_large.py::test_finds_a_planted_subset[32]",
    "subset_sum/test_solve.py::test_one_problem_eager_jit_and_vmap_agree_with_the_batch[quadratic-7]",
    "experiments/test_sweeps.py::test_depth_has_the_errors_of_every_layer",
    *(
        f"export/test_export.py::test_a_ticket_as_{form}[{name}"
        for form in ("onnx", "a_module_of_pytorch")
        for name in ("plain, hwc", "one axis", "projection, random", "sigmoid", "groups, 2L")
    ),
    "nn/test_fold.py::test_folding_changes_no_output[projection]",
    "construction/test_fold.py::test_compensated_tickets_of_residual_networks_are_near",
    "construction/test_fold.py::test_many_copies_leave_a_small_error[strided]",
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
    "pruning/test_searches.py::test_a_larger_scale_is_a_smaller_rate",
    "pruning/test_searches.py::test_a_distilled_search_comes_nearer",
    "pruning/test_searches.py::test_numbers_as_labels_are_searched_for_too",
    "certificate/test_theorem.py::test_what_is_guaranteed_on_a_box_holds_at_its_corners[flat images-1",
    "certificate/test_theorem.py::test_what_is_guaranteed_on_a_box_holds_at_its_corners[vectors-1",
    "subset_sum/test_theory.py::test_failure_of_the_slide[15-product",
    "certificate/test_groups.py::test_an_exact_output_layer_of_groups",
    "construction/test_blocks_of_published_networks.py::test_constants_that_differ_from_place_to_place",
    "construction/test_fit.py::test_equal_arguments_have_equal_fits[2L",
    "construction/test_fit.py::test_the_fit_that_is_predicted_best_is_better",
    *(
        f"construction/test_fold.py::test_the_ticket_computes_the_sum_that_it_claims[{name}"
        for name in ("one axis-smallest", "blocks on one axis-compensated", "vectors-compensated")
    ),
    "construction/test_fold.py::test_two_runs_are_identical_and_two_seeds_are_not[compensated",
    "construction/test_groups_and_joins.py::test_groups_are_rounded_too",
    "construction/test_independent.py::test_a_copy_set_aside_is_read_among_more_than_prices_allow_for",
    "construction/test_misfit.py::test_a_bias_is_lost_where_it_exceeds_all_constants",
    "construction/test_misfit.py::test_a_middle_layer_that_is_out_of_reach_is_warned_of_and_named[Comp",
    "construction/test_mixed_activations.py::test_a_ticket_of_every_pair_computes_its_target_on_other_inputs[relu-",
    "construction/test_other_sources.py::test_a_skip_past_a_flattened_value_is_solved",
    "construction/test_other_sources.py::test_tickets_of_such_sources_compute_their_target[options0",
    "construction/test_rounded.py::test_a_refined_mask_is_rounded_no_more",
    "construction/test_rounded.py::test_as_many_bits_as_were_asked_for",
    "construction/test_rounded.py::test_offsets_stay_within_the_reach_of_few_constants",
    "construction/test_solvers.py::test_a_weight_of_zero_still_has_none",
    "construction/test_solvers.py::test_the_tolerance_is_in_units_of_the_source_s_scale[0.01-smallest",
    "construction/test_stored_tickets.py::test_the_bits_of_a_ticket_do_not_change[strided, smallest",
    "construction/test_two_layers.py::test_positive_weights_leave_no_channel_dead_behind_a_relu[pooled",
    "experiments/test_bits.py::test_every_point_is_a_ticket_run_or_a_rounded_target",
    "experiments/test_subset_sum.py::test_bad_settings_give_one_line[problems",
    "experiments/test_subset_sum.py::test_bad_settings_give_one_line[targets",
    "experiments/test_subset_sum.py::test_bad_settings_give_one_line[distribution",
    *(f"export/test_export.py::test_a_ticket_as_{form}[gelu" for form in ("onnx", "a_module_of_pytorch")),
    "interop/test_foreign.py::test_dicts_that_hold_each_other_end",
    "interop/test_from_jax.py::test_a_network_of_slth_is_read_back[option A",
    "interop/test_from_jax.py::test_a_residual_net_of_linen_with_batch_norm",
    "interop/test_from_jax.py::test_a_ticket_of_a_function",
    "interop/test_from_jax_groups.py::test_a_net_of_nnx",
    "nn/test_fold.py::test_a_scaled_skip_stays_a_scale",
    "nn/test_fold.py::test_folding_changes_no_output[scaled",
    "nn/test_fold.py::test_folding_changes_no_output[pre-activation",
    "subset_sum/test_large.py::test_equals_enumeration_where_both_can[True",
    "subset_sum/test_solve.py::test_masks_equal_brute_force[smallest-12",
    "subset_sum/test_solve.py::test_one_problem_eager_jit_and_vmap_agree_with_the_batch[best-7",
    "subset_sum/test_solve.py::test_quadratic_equals_brute_force[12",
    "test_compact.py::test_a_compact_ticket_of_a_smooth_target_with_biases_everywhere",
    "test_compact.py::test_a_compact_ticket_of_two_layers_for_each_holds_no_dead_univariate_channel[pooled",
    "test_front_door.py::test_the_program_needs_no_number[relu+tanh",
    "test_refinement.py::test_the_given_mask_stays_where_no_step_helps",
    "test_train.py::test_a_broken_run_goes_on_to_the_same_parameters[1",
)
"""Beginnings of names of tests below tests/."""

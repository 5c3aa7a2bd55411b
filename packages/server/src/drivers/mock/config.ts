import * as v from "valibot";

/** The keys of a mock service. */
export const MockConfig = v.strictObject({
  seed: v.optional(
    v.pipe(
      v.boolean(),
      v.description("Whether it starts with the reference's volumes and snapshots, or empty."),
    ),
    true,
  ),
  delayMs: v.optional(
    v.pipe(
      v.number(),
      v.integer(),
      v.minValue(0),
      v.maxValue(3_600_000),
      v.description(
        "Milliseconds that a copy or a snapshot takes, to show progress and cancelling.",
      ),
    ),
    0,
  ),
});
export type MockConfig = v.InferOutput<typeof MockConfig>;

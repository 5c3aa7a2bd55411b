/** Drivers and short ways to load a text, for the tests of the configuration. */
import assert from "node:assert/strict";
import * as v from "valibot";
import { ConfigError, loadConfig } from "../config.js";
import type { ConfigInput, ServerConfig } from "../config.js";
import { defineDriver } from "../core/driver.js";

const never = (): Promise<never> => Promise.reject(new Error("no driver is opened by checking"));
export const DRIVERS = {
  vfs: defineDriver({
    name: "vfs",
    config: v.strictObject({
      root: v.optional(v.pipe(v.string(), v.startsWith("/", "must be an absolute path"))),
      limits: v.optional(v.strictObject({ maxVolumes: v.optional(v.number()) })),
    }),
    open: never,
  }),
  mock: defineDriver({ name: "mock", config: v.strictObject({}), open: never }),
  lvm: defineDriver({
    name: "lvm",
    config: v.strictObject({
      volumeGroup: v.string(),
      tags: v.optional(v.record(v.string(), v.string())),
    }),
    open: never,
  }),
};

export const BASE: ConfigInput = { env: {}, isRoot: true, home: "/nonexistent" };

export function load(text: string, input: ConfigInput = {}): ServerConfig {
  return loadConfig(DRIVERS, { ...BASE, text, ...input });
}

export function problems(text: string, input: ConfigInput = {}): readonly string[] {
  try {
    load(text, input);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
  return [];
}

export function one(text: string, expected: RegExp, input: ConfigInput = {}): void {
  const found = problems(text, input);
  assert.equal(found.length, 1, found.join("\n") || "no problem was found");
  assert.match(found[0] ?? "", expected);
}

export const SERVICE = "libstorage.server.services.a.driver: vfs\n";

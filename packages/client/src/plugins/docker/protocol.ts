/**
 * Docker's volume plugin protocol: which paths there are, what each is asked and what it answers. Section
 * 20 of the contract; trace `docker-volume-plugin.json`.
 */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { CallContext } from "@libstorage/model";
import type { VolumeDriver } from "./volume-driver.js";

export const CONTENT_TYPE = "application/vnd.docker.plugins.v1.1+json";

const Text = v.pipe(
  v.string(),
  v.check((text) => !text.includes("\0"), "must have no control characters"),
);
/** The validator's own map takes a list for one, and leaves out keys such as "constructor". */
const Texts = v.custom<Readonly<Record<string, string>>>(
  (value) =>
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((text) => v.is(Text, text)),
  "must be a map of texts",
);
/** A name is looked for on this host and asked of the server; no real one is longer. */
const Request = v.object({
  Name: v.optional(v.pipe(Text, v.maxLength(1024, "must have at most 1024 characters")), ""),
  ID: v.optional(v.pipe(Text, v.maxLength(1024, "must have at most 1024 characters")), ""),
  Opts: v.optional(v.nullable(Texts)),
});
export type Request = v.InferOutput<typeof Request>;

export interface Operation {
  /** What it may take: `read` looks, `change` may wait for a device. `none` asks nobody. */
  readonly kind: "none" | "read" | "change";
  readonly needsName: boolean;
  /** @returns what is sent as JSON, or the bytes to send */
  run(driver: VolumeDriver, request: Request, context: CallContext): Promise<object>;
}

const look = { kind: "read", needsName: true } as const;
const change = { kind: "change", needsName: true } as const;

export const OPERATIONS: Readonly<Record<string, Operation>> = {
  "VolumeDriver.Capabilities": {
    kind: "none",
    needsName: false,
    // Every host with the plugin sees the same volumes.
    run: async () => ({ Capabilities: { Scope: "global" } }),
  },
  "VolumeDriver.Create": {
    ...change,
    async run(driver, { Name, Opts }, context) {
      await driver.create(Name, Opts ?? {}, context);
      return {};
    },
  },
  "VolumeDriver.Remove": {
    ...change,
    async run(driver, { Name }, context) {
      await driver.remove(Name, context);
      return {};
    },
  },
  "VolumeDriver.Mount": {
    ...change,
    run: async (driver, { Name, ID }, context) => ({
      Mountpoint: await driver.mount(Name, ID, context),
    }),
  },
  "VolumeDriver.Unmount": {
    ...change,
    async run(driver, { Name, ID }, context) {
      await driver.unmount(Name, ID, context);
      return {};
    },
  },
  "VolumeDriver.Path": {
    ...look,
    run: async (driver, { Name }, context) => ({ Mountpoint: await driver.path(Name, context) }),
  },
  "VolumeDriver.Get": {
    ...look,
    run: async (driver, { Name }, context) => ({ Volume: await driver.get(Name, context) }),
  },
  "VolumeDriver.List": {
    kind: "read",
    needsName: false,
    run: (driver, _request, context) => driver.list(context),
  },
};

/** The reference answers it with a blank, which some clients may look for. */
export const ACTIVATED = '{"Implements": ["VolumeDriver"]}';

/** @throws {StorageError} `invalid-argument` for members of the wrong kind */
export function readRequest(value: unknown, { needsName }: Operation): Request {
  const result = v.safeParse(Request, value ?? {});
  if (!result.success) {
    const [issue] = result.issues;
    throw new StorageError(
      "invalid-argument",
      `the request is not as the protocol says: ${v.getDotPath(issue) ?? "the whole"}: ${issue.message}`,
    );
  }
  if (needsName && result.output.Name === "")
    throw new StorageError("invalid-argument", "missing volume name or ID");
  return result.output;
}

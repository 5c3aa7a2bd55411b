/**
 * What a host tells of itself beside its instance ID, as the metadata of the `Libstorage-Instanceid` header:
 * enough for an exporter to let that host in, and for the server to know whether it is its own host. Not in
 * the reference, whose drivers need the id alone; sent only to services that name an exporter.
 */
import * as v from "valibot";

const MAX_ADDRESSES = 64;

export const HostFacts = v.object({
  hostName: v.pipe(v.string(), v.minLength(1), v.maxLength(253)),
  /** `/proc/sys/kernel/random/boot_id`: no two hosts that run have the same. */
  bootID: v.optional(v.pipe(v.string(), v.uuid())),
  /** The name of its iSCSI initiator: `iqn.…`, `eui.…` or `naa.…`, in lower case. */
  initiatorName: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^(?:iqn\.[\da-z.:_-]{1,219}|eui\.[\da-f]{16}|naa\.[\da-f]{16}(?:[\da-f]{16})?)$/),
    ),
  ),
  /** Its addresses, without those of loopback and link-local ones. */
  addresses: v.optional(
    v.pipe(
      v.array(v.union([v.pipe(v.string(), v.ipv4()), v.pipe(v.string(), v.ipv6())])),
      v.maxLength(MAX_ADDRESSES),
    ),
  ),
});
export type HostFacts = v.InferOutput<typeof HostFacts>;

/** The facts in an instance ID's metadata, or undefined when it has none. */
export function hostFactsOf(metadata: unknown): HostFacts | undefined {
  const result = v.safeParse(HostFacts, metadata);
  return result.success ? result.output : undefined;
}

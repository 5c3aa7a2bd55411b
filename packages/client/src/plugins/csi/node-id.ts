/**
 * The id of a node holds what the controller needs to let that node in: the node's instance ID and, for
 * services whose volumes travel, the facts that their exporter asks for. It stays the same over restarts of
 * the host.
 *
 *     vfs:web-1
 *     lvm-iscsi:web-1?i=iqn.1993-08.org.debian%3A01%3Aabc&a=192.0.2.4
 */
import { hostFactsOf } from "@libstorage/model";
import type { Fields, HostFacts, InstanceID } from "@libstorage/model";
import { CsiError } from "./status.js";

/** @see csi.proto, NodeGetInfoResponse.node_id */
const MAX_BYTES = 256;

/** @throws {CsiError} FAILED_PRECONDITION for a host whose facts do not fit */
export function formatNodeID({ id, driver, fields, metadata }: InstanceID): string {
  const facts = hostFactsOf(metadata);
  const base = `${driver}:${encodeURIComponent(id)}`;
  const query = new URLSearchParams();
  if (facts !== undefined && facts.hostName !== id) query.set("h", facts.hostName);
  if (facts?.initiatorName !== undefined) query.set("i", facts.initiatorName);
  for (const [key, value] of Object.entries(fields ?? {})) query.append("f", `${key}=${value}`);
  let text = joined(base, query);
  if (Buffer.byteLength(text) > MAX_BYTES)
    throw new CsiError(
      "FAILED_PRECONDITION",
      `the names of this host are too long for a node id of ${MAX_BYTES} bytes; shorten the initiator's name`,
    );
  // As many addresses as there is room for, IPv4 first; one of them is enough.
  const addresses = [...(facts?.addresses ?? [])].toSorted((a, b) => a.length - b.length);
  for (const address of addresses) {
    const longer = new URLSearchParams(query);
    longer.append("a", address);
    if (Buffer.byteLength(joined(base, longer)) > MAX_BYTES) break;
    query.append("a", address);
    text = joined(base, query);
  }
  return text;
}

function joined(base: string, query: URLSearchParams): string {
  const text = query.toString();
  return text === "" ? base : `${base}?${text}`;
}

/** @returns undefined for a text that is no id of a node of this driver */
export function parseNodeID(text: string, driver: string): InstanceID | undefined {
  const question = text.indexOf("?");
  const base = question < 0 ? text : text.slice(0, question);
  const query = new URLSearchParams(question < 0 ? "" : text.slice(question + 1));
  const colon = base.indexOf(":");
  if (colon < 1 || base.slice(0, colon).toLowerCase() !== driver.toLowerCase()) return undefined;
  const id = decoded(base.slice(colon + 1));
  if (id === undefined || id === "") return undefined;
  const fields: Fields = Object.fromEntries(
    query.getAll("f").map((one) => {
      const equals = one.indexOf("=");
      return equals < 0 ? [one, ""] : [one.slice(0, equals), one.slice(equals + 1)];
    }),
  );
  const metadata = factsIn(query, id);
  return {
    id,
    driver,
    service: "",
    ...(Object.keys(fields).length > 0 && { fields }),
    ...(metadata !== undefined && { metadata }),
  };
}

function factsIn(query: URLSearchParams, id: string): HostFacts | undefined {
  const initiatorName = query.get("i");
  const addresses = query.getAll("a");
  const hostName = query.get("h");
  if (initiatorName === null && addresses.length === 0 && hostName === null) return undefined;
  return {
    hostName: hostName ?? id,
    ...(initiatorName !== null && { initiatorName }),
    ...(addresses.length > 0 && { addresses }),
  };
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

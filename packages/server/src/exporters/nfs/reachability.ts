/** Which addresses of a host are let in, and under which of its own this server is found from there. */
import { networkInterfaces } from "node:os";
import { StorageError } from "@libstorage/model";
import type { ErrorData } from "@libstorage/model";
import type { Wanted } from "../../core/exporter.js";
import type { NfsConfig } from "./config.js";
import { canonical, within } from "./subnets.js";

/** One address of this server, with the subnet that it is in. */
export interface OwnAddress {
  readonly address: string;
  /** `ADDRESS/BITS` */
  readonly cidr: string;
}

/** Without those of loopback and link-local ones, which no other host can reach. */
export function ownAddresses(): OwnAddress[] {
  return Object.values(networkInterfaces())
    .flatMap((of) => of ?? [])
    .filter(({ internal, address }) => !internal && !address.toLowerCase().startsWith("fe80:"))
    .map(({ address, cidr }) => ({ address, cidr: cidr ?? address }));
}

export interface Reach {
  /** Under which the holder finds this server. */
  readonly server: string;
  /** Those of the holder that are let in; at least one. */
  readonly clients: readonly string[];
}

function refusal(what: string, next: string, data: ErrorData): StorageError {
  return new StorageError("invalid-argument", `cannot export to ${what}; ${next}`, data);
}

/** An address that several hosts have, such as that of a container bridge, says nothing of who comes. */
function told({ holder, facts }: Wanted, own: readonly OwnAddress[]): string[] {
  const addresses = (facts.addresses ?? []).flatMap((address) => canonical(address) ?? []);
  const others = addresses.filter((one) => own.every(({ address }) => address !== one));
  if (others.length > 0) return others;
  throw refusal(
    holder.id,
    addresses.length === 0
      ? "it tells no address; give it one that this server can reach"
      : `it tells no address but this server's own (${addresses.join(", ")})`,
    { instanceID: holder.id },
  );
}

function serverFor(
  { server }: NfsConfig,
  holder: string,
  clients: readonly string[],
  own: readonly OwnAddress[],
): string {
  if (server !== undefined) return server;
  const near = own.find(({ cidr }) => within([cidr], clients).length > 0);
  const any = near ?? own.find(({ address }) => canonical(address) !== undefined);
  if (any !== undefined) return any.address;
  throw new StorageError(
    "failed-precondition",
    `cannot export to ${holder}: this server has no address that other hosts can reach; set "nfs.server"`,
    { instanceID: holder },
  );
}

/** @throws {StorageError} `invalid-argument` when none of the holder's addresses will do */
export function reachOf(
  config: NfsConfig,
  wanted: Wanted,
  own: readonly OwnAddress[] = ownAddresses(),
): Reach {
  const { id } = wanted.holder;
  const addresses = told(wanted, own);
  const near = within(
    own.map(({ cidr }) => cidr),
    addresses,
  );
  const byDefault = near.length > 0 ? near : addresses;
  const clients = config.networks === undefined ? byDefault : within(config.networks, addresses);
  if (clients.length === 0)
    throw refusal(
      id,
      `none of its addresses (${addresses.join(", ")}) is in "nfs.networks" (${config.networks?.join(", ")})`,
      { instanceID: id, addresses },
    );
  return { server: serverFor(config, id, clients, own), clients };
}

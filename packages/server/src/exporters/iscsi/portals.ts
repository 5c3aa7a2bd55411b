/** Where a target listens, and which of these addresses a holder is told. */
import { BlockList, isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { StorageError } from "@libstorage/model";

export interface Portal {
  readonly address: string;
  readonly port: number;
}

/** RFC 7143, section 8.7.1 (IANA). */
const DEFAULT_PORT = 3260;

const FORM = /^(?:\[([^\]\s]+)\]|([^:\s]+))(?::(\d{1,5}))?$/;

/** Reads `10.0.0.1`, `10.0.0.1:3260`, `[fd00::1]:3260`; names of hosts are none. */
export function parsePortal(text: string): Portal | undefined {
  const [, six, four, digits = String(DEFAULT_PORT)] = FORM.exec(text.trim()) ?? [];
  const address = six ?? four ?? "";
  const port = Number(digits);
  const isAddress = isIP(address) === (six === undefined ? 4 : 6) && !address.includes("%");
  if (!isAddress || port === 0 || port > 65_535) return undefined;
  return { address: canonical(address), port };
}

export function formatPortal({ address, port }: Portal): string {
  return isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}

/** One spelling for one address, the one that the kernel shows. */
function canonical(address: string): string {
  return isIP(address) === 6 ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

/** `0.0.0.0` and `::` stand for every address of the host. */
export function isWildcard({ address }: Portal): boolean {
  return address === "0.0.0.0" || address === "::";
}

/** An address of this host, with the network that it is in (`10.0.0.1/24`). */
export interface OwnAddress {
  readonly address: string;
  readonly network: string;
  readonly isInternal: boolean;
}

export function ownAddresses(): readonly OwnAddress[] {
  return Object.values(networkInterfaces()).flatMap((addresses = []) =>
    addresses
      .filter(({ scopeid = 0 }) => scopeid === 0)
      .map(({ address, cidr, internal }) => ({
        address: canonical(address),
        network: cidr ?? address,
        isInternal: internal,
      })),
  );
}

function isOutward({ address, isInternal }: OwnAddress): boolean {
  return !isInternal && !address.startsWith("169.254.");
}

/**
 * The portals that a target listens on: those configured, or else each address that other hosts can reach.
 * @throws {StorageError} `failed-precondition` for an address that this host does not have: the kernel would
 * bind it all the same, and nobody would ever come
 */
export function listeningPortals(
  configured: readonly Portal[],
  own: readonly OwnAddress[] = ownAddresses(),
): readonly Portal[] {
  for (const portal of configured)
    if (!isWildcard(portal) && !own.some(({ address }) => address === portal.address))
      throw new StorageError(
        "failed-precondition",
        `the portal ${formatPortal(portal)} cannot be used: this host has no address ${portal.address}; it has ${own.map(({ address }) => address).join(", ")}; correct "portals", or bring that address up`,
        { portal: formatPortal(portal) },
      );
  if (configured.length > 0) return configured;
  const found = own.filter(isOutward);
  if (found.length === 0)
    throw new StorageError(
      "failed-precondition",
      'this host has no address that other hosts can reach; bring a network up, or set "portals"',
    );
  return found.map(({ address }) => ({ address, port: DEFAULT_PORT }));
}

/**
 * The portals that a holder is told: concrete addresses. Those that were configured by address, all of them;
 * else those in a network of which the holder has an address too, and all when there is no such network.
 */
export function portalsFor(
  configured: readonly Portal[],
  holderAddresses: readonly string[],
  own: readonly OwnAddress[] = ownAddresses(),
): readonly Portal[] {
  const listening = listeningPortals(configured, own);
  if (configured.length > 0 && !configured.some(isWildcard)) return listening;
  const all = listening.flatMap((portal) =>
    isWildcard(portal)
      ? own
          .filter((one) => isOutward(one) && isIP(one.address) === isIP(portal.address))
          .map(({ address }) => ({ address, port: portal.port }))
      : [portal],
  );
  const near = all.filter(({ address }) =>
    own.some((one) => one.address === address && holderAddresses.some((far) => isIn(one, far))),
  );
  return near.length > 0 ? near : all;
}

function isIn({ network }: OwnAddress, address: string): boolean {
  const [base = "", bits] = network.split("/");
  const family = isIP(address) === 6 ? "ipv6" : "ipv4";
  if (isIP(base) !== isIP(address)) return false;
  const list = new BlockList();
  list.addSubnet(base, Number(bits ?? (family === "ipv6" ? 128 : 32)), family);
  return list.check(address, family);
}

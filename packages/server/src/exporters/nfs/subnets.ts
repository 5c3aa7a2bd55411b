/** Addresses and subnets. */
import { BlockList, SocketAddress, isIP } from "node:net";

const BITS = { ipv4: 32, ipv6: 128 } as const;

/** The address as tools print it, or undefined when it is none. */
export function canonical(address: string): string | undefined {
  const kind = isIP(address);
  if (kind === 0) return undefined;
  return kind === 4 ? address : new SocketAddress({ address, family: "ipv6" }).address;
}

export function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

/** Adds `ADDRESS` or `ADDRESS/BITS`. @returns whether it is one */
export function addSubnet(list: BlockList, text: string): boolean {
  const [address = "", bits, ...rest] = text.split("/");
  if (isIP(address) === 0 || rest.length > 0) return false;
  const family = familyOf(address);
  const prefix = bits === undefined ? BITS[family] : Number(bits);
  if (!/^\d*$/.test(bits ?? "") || bits === "" || prefix > BITS[family]) return false;
  list.addSubnet(address, prefix, family);
  return true;
}

/** Those of the addresses that are in one of the subnets. */
export function within(subnets: readonly string[], addresses: readonly string[]): string[] {
  const list = new BlockList();
  for (const subnet of subnets) addSubnet(list, subnet);
  return addresses.filter((address) => list.check(address, familyOf(address)));
}

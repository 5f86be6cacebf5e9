import { readFileSync } from 'node:fs';
import { VM_FLAG } from '../run.ts';

/**
 * Throws unless this is the test VM. Elsewhere AF_VSOCK may lead to a real hypervisor or host, which no test may
 * touch.
 */
export function requireVm(): void {
  const words = readFileSync('/proc/cmdline', 'utf8').trim().split(' ');
  if (!words.includes(VM_FLAG))
    throw new Error(`this runs in the test VM alone (no ${VM_FLAG} in /proc/cmdline)`);
}

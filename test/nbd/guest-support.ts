/**
 * A Linux guest whose disk is one of our exports: QEMU without KVM, Debian's kernel, a shell that reads commands from a serial
 * line. It boots in a few seconds. A command is answered with what it printed; everything else of the guest is its own business:
 * what its file system writes, when, in which order. QEMU is ended by its own handle, whatever happens.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { peer } from '../support/peers.ts'
import { NODE } from '../support/qemu/daemon.ts'
import { Qmp } from '../support/qemu/qmp.ts'
import { cpio, folderOf, withLibraries } from './initramfs-support.ts'

/** In the order in which they need each other. */
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
]

/** Its commands come over the second serial line; the first has the kernel's own words. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /dev /proc /sys /mnt
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
for module in ${MODULES.join(' ')}; do insmod /modules/$module.ko; done
[ -b /dev/vda ]
printf '\n@@ %s\n' $?
while read -r line; do
  eval "$line"
  printf '\\n@@ %s\\n' $?
done
`

/** The guest's own programs and these `files`, by their path in it. Made once, for all guests of a test. */
export function initramfs(files: Readonly<Record<string, Uint8Array>>): Buffer {
  const busybox = peer('guest/busybox')!
  return cpio(
    new Map([
      ['init', Buffer.from(INIT)],
      ['bin/busybox', readFileSync(busybox)],
      ...folderOf(join(dirname(busybox), 'modules'), 'modules'),
      ...withLibraries(peer('mke2fs')!),
      ...Object.entries(files),
    ]),
  )
}

export class Guest {
  readonly #folder = mkdtempSync(join(tmpdir(), 'slicelog-guest-'))
  readonly #process: ChildProcess
  readonly #ended: Promise<void>
  readonly #onExit = (): void => void this.#process.kill('SIGKILL')
  #qmp: Qmp | undefined
  #said = ''
  #errors = ''
  #wake: () => void = () => undefined

  private constructor(source: string, archive: Buffer) {
    writeFileSync(join(this.#folder, 'initramfs'), archive)
    this.#process = spawn(
      'setpriv', // A worker that is ended by force cannot end its guest: the kernel does.
      [
        '--pdeathsig',
        'KILL',
        peer('qemu-system-x86_64')!,
        '-machine',
        'pc,accel=tcg',
        '-m',
        '256',
        '-nodefaults',
        '-no-user-config',
        '-no-reboot',
        '-display',
        'none',
        '-kernel',
        peer('guest/vmlinuz')!,
        '-initrd',
        join(this.#folder, 'initramfs'),
        '-append',
        'console=ttyS0 quiet panic=-1 mitigations=off',
        '-drive',
        `${source},format=raw,if=virtio,cache=writeback,discard=unmap,node-name=${NODE}`,
        '-serial',
        `file:${join(this.#folder, 'console')}`,
        '-serial',
        'stdio',
        '-qmp',
        `unix:${join(this.#folder, 'qmp')},server=on,wait=off`,
      ],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    )
    process.on('exit', this.#onExit)
    this.#process.stdout!.on('data', (chunk) => {
      this.#said += String(chunk)
      this.#wake()
    })
    this.#process.stderr!.on('data', (chunk) => (this.#errors += String(chunk)))
    this.#process.on('error', (error) => (this.#errors += error.message))
    this.#process.stdin!.on('error', () => undefined)
    this.#ended = new Promise((done) => {
      this.#process.once('close', () => {
        process.removeListener('exit', this.#onExit)
        done()
        this.#wake()
      })
    })
  }

  /** Boots, with an export as /dev/vda: `source` is QEMU's way to name it, `file=URI` or `file.driver=nbd,…`. Rejects with what the guest's kernel said where it does not come up. */
  static async boot(source: string, archive: Buffer): Promise<Guest> {
    const guest = new Guest(source, archive)
    try {
      await guest.#answer()
      guest.#qmp = await Qmp.connect(join(guest.#folder, 'qmp'))
      return guest
    } catch (error) {
      await guest.kill()
      throw error
    }
  }

  /** What a command line of the guest's shell printed. Rejects where its last command failed. */
  run(line: string): Promise<string> {
    this.#process.stdin!.write(`${line}\n`)
    return this.#answer(line)
  }

  /** Stops its processor; QEMU waits for every request of the disk that is under way, and none begins before `resume`. */
  async pause(): Promise<void> {
    await this.#qmp!.execute('stop')
  }

  async resume(): Promise<void> {
    await this.#qmp!.execute('cont')
  }

  /** From now on its QEMU keeps a bitmap of that name of what the guest changes on its disk. */
  async track(name: string, granularity: number): Promise<void> {
    await this.#qmp!.execute('block-dirty-bitmap-add', { node: NODE, name, granularity })
  }

  /** Of a bitmap that its QEMU keeps, by QEMU (R5). */
  async digest(name: string): Promise<string> {
    const answer = await this.#qmp!.execute('x-debug-block-dirty-bitmap-sha256', { node: NODE, name })
    return (answer as { sha256: string }).sha256
  }

  /** In order: it turns itself off. */
  async powerOff(): Promise<void> {
    this.#process.stdin!.write('poweroff -f\n')
    await this.#ended
    this.#remove()
  }

  /** As if the machine had lost its power: what the guest did not flush may be missing. Safe after any end. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#ended
    this.#remove()
  }

  async #answer(line = 'boot'): Promise<string> {
    while (true) {
      const end = /^@@ (\d+)\r?\n/m.exec(this.#said)
      if (end !== null) {
        const printed = this.#said.slice(0, end.index).replaceAll('\r', '').trim()
        this.#said = this.#said.slice(end.index + end[0].length)
        if (end[1] !== '0') throw new Error(`in the guest, "${line}" ended with ${end[1]}: ${printed}`)
        return printed
      }
      if (this.#process.exitCode !== null || this.#process.signalCode !== null)
        throw new Error(`the guest ended at "${line}": ${this.#said}${this.#errors}${this.#console()}`)
      await Promise.race([new Promise<void>((done) => (this.#wake = done)), sleep(1000)])
    }
  }

  #console(): string {
    try {
      return readFileSync(join(this.#folder, 'console'), 'utf8').slice(-2000)
    } catch {
      return ''
    }
  }

  #remove(): void {
    this.#qmp?.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/**
 * Files and folders with everything that was done to them, so that the state at any moment can be told: as programs saw it,
 * and as it may be found after the power went (power-cut.ts).
 *
 * Built from what lay there before and a recording (strace.ts). Memory: every byte written.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { FileCall } from './strace.ts'

interface Span {
  readonly began: number
  readonly done: number
}

export type Op = Span &
  (
    | { readonly kind: 'write'; readonly offset: number; readonly data: Buffer }
    | { readonly kind: 'size'; readonly size: number }
  )

export type NameOp = Span &
  (
    | { readonly kind: 'put'; readonly name: string; readonly node: Node }
    | { readonly kind: 'drop'; readonly name: string }
    | { readonly kind: 'move'; readonly name: string; readonly to: string; readonly node: Node }
  )

export interface FileNode {
  readonly kind: 'file'
  /** What was there, durable, before the recording. */
  readonly before: Buffer
  readonly ops: Op[]
  readonly syncs: Span[]
}

export interface FolderNode {
  readonly kind: 'folder'
  readonly before: ReadonlyMap<string, Node>
  readonly ops: NameOp[]
  readonly syncs: Span[]
  /** Names as programs saw them at the end. */
  readonly names: Map<string, Node>
}

export type Node = FileNode | FolderNode

/** What lies at a path now, taken as durable. Sockets are left out: they hold nothing. */
export function stored(path: string): Node {
  if (statSync(path).isFile()) return { kind: 'file', before: readFileSync(path), ops: [], syncs: [] }
  const names = new Map<string, Node>()
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isFile() || entry.isDirectory()) names.set(entry.name, stored(join(path, entry.name)))
  return folderOf(names)
}

const folderOf = (names: ReadonlyMap<string, Node>): FolderNode => ({
  kind: 'folder',
  before: new Map(names),
  ops: [],
  syncs: [],
  names: new Map(names),
})

/** Puts the calls of a recording to what was stored at each root before it. */
export class FileHistory {
  readonly #roots: ReadonlyMap<string, Node>
  readonly #open = new Map<number, { node: Node; at: number; append: boolean }>()

  constructor(roots: ReadonlyMap<string, Node>, calls: readonly FileCall[]) {
    this.#roots = roots
    for (const call of calls) this.#apply(call)
  }

  root(path: string): Node {
    const node = this.#roots.get(path)
    if (node === undefined) throw new Error(`nothing was recorded of ${path}`)
    return node
  }

  #apply(call: FileCall): void {
    const { began, done } = call
    const span = { began, done }
    switch (call.kind) {
      case 'open':
        this.#openFile(call)
        return
      case 'write': {
        const file = this.#open.get(call.fd)
        if (file === undefined)
          throw new Error(`line ${began}: a write to ${call.fd}, which was never opened`)
        if (file.node.kind !== 'file') throw new Error(`line ${began}: a write to a folder`)
        const offset = call.offset ?? (file.append ? sizeOf(file.node) : file.at)
        if (call.offset === null) file.at = offset + call.data.length
        file.node.ops.push({ ...span, kind: 'write', offset, data: call.data })
        return
      }
      case 'seek': {
        const file = this.#open.get(call.fd)
        if (file !== undefined) file.at = call.to
        return
      }
      case 'size': {
        const node = this.#open.get(call.fd)?.node
        if (node?.kind !== 'file') throw new Error(`line ${began}: a size of what is no file`)
        node.ops.push({ ...span, kind: 'size', size: call.size })
        return
      }
      case 'sync':
        this.#open.get(call.fd)?.node.syncs.push(span)
        return
      case 'make-folder':
        this.#name(call.path, (folder, name) => {
          if (!folder.names.has(name)) put(folder, name, folderOf(new Map()), span)
        })
        return
      case 'remove':
        this.#name(call.path, (folder, name) => drop(folder, name, span))
        return
      case 'link':
      case 'rename':
        this.#twoNames(call, span)
        return
      default: {
        const never: never = call
        throw new Error(`unknown call ${JSON.stringify(never)}`)
      }
    }
  }

  #openFile({ path, create, truncate, append, fd, began, done }: Extract<FileCall, { kind: 'open' }>): void {
    const span = { began, done }
    let node = this.#find(path)
    if (node === undefined && create) {
      const made: FileNode = { kind: 'file', before: Buffer.alloc(0), ops: [], syncs: [] }
      this.#name(path, (folder, name) => put(folder, name, made, span))
      node = made
    }
    // A socket, or what was begun before the recording and is of no interest.
    if (node === undefined) return
    if (truncate && node.kind === 'file' && sizeOf(node) > 0)
      node.ops.push({ ...span, kind: 'size', size: 0 })
    if (fd !== null) this.#open.set(fd, { node, at: 0, append })
  }

  #twoNames(call: Extract<FileCall, { kind: 'rename' | 'link' }>, span: Span): void {
    const node = this.#find(call.path)
    if (node === undefined) return
    if (call.kind === 'link') {
      this.#name(call.to, (folder, name) => put(folder, name, node, span))
      return
    }
    if (dirname(call.path) !== dirname(call.to))
      throw new Error(`line ${call.began}: a file moves from one folder to another, which is not modelled`)
    this.#name(call.path, (folder, name) => {
      const to = basename(call.to)
      folder.ops.push({ ...span, kind: 'move', name, to, node })
      folder.names.delete(name)
      folder.names.set(to, node)
    })
  }

  /** The folder of a path and its name there. A root has no folder. */
  #name(path: string, act: (folder: FolderNode, name: string) => void): void {
    const folder = this.#find(dirname(path))
    if (folder?.kind !== 'folder') throw new Error(`${path} lies in no folder that was recorded`)
    act(folder, basename(path))
  }

  #find(path: string): Node | undefined {
    const root = this.#roots.get(path)
    if (root !== undefined) return root
    if (path === dirname(path)) return undefined
    const folder = this.#find(dirname(path))
    return folder?.kind === 'folder' ? folder.names.get(basename(path)) : undefined
  }
}

function put(folder: FolderNode, name: string, node: Node, span: Span): void {
  folder.ops.push({ ...span, kind: 'put', name, node })
  folder.names.set(name, node)
}

function drop(folder: FolderNode, name: string, span: Span): void {
  if (folder.names.delete(name)) folder.ops.push({ ...span, kind: 'drop', name })
}

function sizeOf({ before, ops }: FileNode): number {
  return ops.reduce((size, op) => sizeAfter(size, op), before.length)
}

export function sizeAfter(size: number, op: Op): number {
  return op.kind === 'size' ? op.size : Math.max(size, op.offset + op.data.length)
}

/** How many lines of a recording were written before `time` (ms since the epoch). */
export function linesBefore(times: Float64Array, time: number): number {
  let [low, high] = [0, times.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[middle]! < time) low = middle + 1
    else high = middle
  }
  return low
}

/** The same history with every sync struck out: what a process would leave that makes nothing durable. */
export function unsynced<T extends Node>(node: T): T {
  const copies = new Map<Node, Node>()
  const copy = (one: Node): Node => {
    const made = copies.get(one)
    if (made !== undefined) return made
    if (one.kind === 'file') {
      const file: FileNode = { ...one, syncs: [] }
      copies.set(one, file)
      return file
    }
    const names = (of: ReadonlyMap<string, Node>) =>
      new Map([...of].map(([name, below]) => [name, copy(below)]))
    const ops = one.ops.map((op) => (op.kind === 'drop' ? op : { ...op, node: copy(op.node) }))
    const folder: FolderNode = {
      kind: 'folder',
      before: names(one.before),
      ops,
      syncs: [],
      names: names(one.names),
    }
    copies.set(one, folder)
    return folder
  }
  return copy(node) as T
}

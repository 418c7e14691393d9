# frozen_string_literal: true

# Runs Ruby functions for the process driver. The channel's protocol is
# described in package frame; what user code sees is the open runtimes' contract.
# Needs Ruby 3.0.
#
# The master owns the channel and runs no user code. Workers are forked from it and
# run one call at a time; a socket of their own carries the same frames.
require "json"
require "socket"
require "stringio"

module FnKit
  CALL, HEAD, DATA, WINDOW, RESET, LOG, READY, BIND, BOUND = *1..9
  FINAL = 1 # the flag END
  CREDIT = 256 << 10
  PIECE = 64 << 10 # body bytes in one frame
  FRAME = 1 << 20
  BODY_LIMIT = 20 << 20 # of a request
  STATUS_LIMIT = 1 << 30
  LINE_LIMIT = 8000
  WATCH = 0.1 # seconds between looks at workers whose socket a child of theirs keeps open
  NATIVE = "Native logs detected. Use context.log() or context.error() for better experience.\n"

  module_function

  def frame(id, type, flags, payload = "")
    [payload.bytesize + 6, id, type, flags].pack("VVCC") << payload.b
  end

  def head(fields)
    json = JSON.generate(fields).b
    raise ArgumentError, "response headers are too large" if json.bytesize > 0xffff

    [json.bytesize].pack("v") << json
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  def error_text(error)
    trace = (error.backtrace || []).reject { |line| line.start_with?(__FILE__) }
    text = "#{utf8(error.message)} (#{error.class})"
    text = "#{trace.shift}: #{text}" unless trace.empty?
    [text, *trace.map { |line| "\tfrom #{line}" }].join("\n")
  end

  def show(value)
    case value
    when Exception then error_text(value)
    when Array, Hash then JSON.generate(value)
    else utf8(value.to_s)
    end
  rescue JSON::GeneratorError
    utf8(value.to_s)
  end

  # A text that can be joined with others.
  def utf8(text)
    text = text.dup.force_encoding(Encoding::UTF_8) if text.encoding == Encoding::BINARY
    text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace).scrub
  end

  # Cuts a stream of bytes into frames.
  class Frames
    def initialize
      @buffer = "".b
    end

    # Returns the frames that are complete, as [id, type, flags, bytes]; the last is
    # nil if what follows is malformed.
    def cut(data)
      @buffer << data
      at = 0
      all = []
      while @buffer.bytesize - at >= 10
        length, id, type, flags = @buffer.byteslice(at, 10).unpack("VVCC")
        return all << nil if length < 6 || length > FRAME
        break if @buffer.bytesize - at < length + 4

        all << [id, type, flags, @buffer.byteslice(at, length + 4)]
        at += length + 4
      end
      @buffer = @buffer.byteslice(at..)
      all
    end
  end

  # ---- the master ----

  # A worker as the master sees it.
  class Child
    attr_reader :pid, :socket, :frames
    attr_accessor :out, :call, :error

    def initialize(pid, socket, out)
      @pid, @socket, @out = pid, socket, out.dup # out is bounded by the calls' windows
      @frames = Frames.new
      @error = nil # of loading; "": loaded; nil: not known yet
    end

    # How the process ended; nil: it has not.
    def status
      @status ||= Process.wait2(@pid, Process::WNOHANG)&.last
    end

    def kill
      Process.kill(:KILL, @pid) unless status
    end
  end

  class Pending
    attr_reader :id, :child, :timeout, :logging
    attr_accessor :started, :answered, :deadline

    def initialize(id, child, head)
      @id, @child = id, child
      @timeout = head["t"] || 0 # milliseconds; 0: none
      @logging = head["l"] == 1
      @started = false # its body is complete
      @answered = false # its head is out
      @deadline = Float::INFINITY
    end
  end

  class Master
    def initialize
      @channel = UNIXSocket.for_fd(3)
      @channel.close_on_exec = true
      @frames = Frames.new
      @children = {} # by socket
      @idle = [] # the last used at the end
      @dead = [] # killed, and not seen to end
      @calls = {} # by id
      @bind = "".b
      @ready = false
      @bound = false
      @looked = 0
      @out = "".b
    end

    def run
      # With it the interpreter would take three times as long to get here.
      require "rubygems"
      # The first worker gets ready while the host decides what to load.
      @idle << spawn
      loop do
        write
        wait
      end
    end

    private

    # Ends everything.
    def quit(status)
      @children.each_value(&:kill)
      exit!(status)
    end

    def wait
      left = time_left
      writing = @children.values.reject { |c| c.out.empty? }.map(&:socket)
      writing << @channel unless @out.empty?
      reading = [@channel]
      reading.concat(@children.keys) if @out.bytesize < FRAME
      ready, = IO.select(reading, writing, nil, left)
      (ready || []).each do |socket|
        next read_channel if socket == @channel

        child = @children[socket]
        read_child(child) if child
      end
      look if left
    end

    # How long nothing but frames can happen; nil: for ever.
    def time_left
      return if @calls.empty? && @dead.empty?

      first = @calls.each_value.map(&:deadline).min || Float::INFINITY
      [[WATCH, first - FnKit.now].min, 0].max
    end

    # Finds calls that took too long, and processes that ended unseen.
    def look
      now = FnKit.now
      @calls.values.each { |call| time_out(call) if call.deadline <= now }
      return if now - @looked < WATCH

      @looked = now
      @dead.reject!(&:status)
      @calls.values.each do |call|
        next unless call.child.status

        drain(call.child)
        lost(call.child, ending(call.child))
      end
    end

    def write
      @out = write_to(@channel, @out) || quit(0)
      @children.each_value do |child|
        # What a process that ended did not take is of no use to anybody.
        child.out = write_to(child.socket, child.out) || "".b
      end
    end

    # Returns what is left; nil: nobody reads any more.
    def write_to(socket, data)
      return data if data.empty?

      n = socket.write_nonblock(data, exception: false)
      return data if n == :wait_writable

      n == data.bytesize ? "".b : data.byteslice(n..)
    rescue SystemCallError
      nil
    end

    # -- from the host --

    def read_channel
      data = @channel.read_nonblock(CREDIT, exception: false)
      return if data == :wait_readable

      quit(0) if data.nil?
      @frames.cut(data).each { |f| f ? from_host(*f) : quit(1) }
    rescue SystemCallError
      quit(0)
    end

    def from_host(id, type, flags, frame)
      return start_call(id, flags, frame) if type == CALL

      if type == BIND
        @bind = frame
        @idle.last.out << frame
      elsif (call = @calls[id])
        return reset(call, frame) if type == RESET

        call.child.out << frame
        start_clock(call) if type == DATA && flags & FINAL != 0
      end
    end

    def start_call(id, flags, frame)
      child = @idle.pop || spawn
      head = JSON.parse(frame.byteslice(12, frame.byteslice(10, 2).unpack1("v")))
      call = @calls[id] = child.call = Pending.new(id, child, head)
      child.out << frame
      start_clock(call) if flags & FINAL != 0
    end

    def start_clock(call)
      call.started = true
      call.deadline = FnKit.now + call.timeout / 1000.0 if call.timeout.positive?
    end

    def reset(call, frame)
      if call.started
        kill(call.child)
      else
        call.child.out << frame
        release(call)
      end
      @calls.delete(call.id)
      @out << FnKit.frame(call.id, RESET, FINAL)
    end

    def time_out(call)
      drain(call.child)
      return if !@calls.key?(call.id) || call.answered

      kill(call.child)
      fail_call(call, "Execution timed out.", { s: 500, t: 1 })
    end

    # -- from the workers --

    # Reports whether there may be more.
    def read_child(child)
      data = child.socket.read_nonblock(CREDIT, exception: false)
      return false if data == :wait_readable

      if data.nil?
        lost(child, ending(child))
        return false
      end
      child.frames.cut(data).each { |f| quit(1) unless f && from_child(child, *f) }
      true
    rescue SystemCallError
      lost(child, ending(child))
      false
    end

    # Reads what a process has written so far, or a frame's worth of it.
    def drain(child)
      8.times { break unless @children.key?(child.socket) && read_child(child) }
    end

    # Passes a frame on; false: it is malformed.
    def from_child(child, id, type, flags, frame)
      if type == READY
        told_ready(frame)
        return true
      end
      if type == BOUND
        child.error = JSON.parse(frame.byteslice(10..))["error"]
        told_bound(frame)
        return true
      end
      return false unless [HEAD, DATA, WINDOW, RESET, LOG].include?(type)

      call = child.call
      return true if call.nil? || call.id != id

      @out << frame
      if type == HEAD
        call.answered = true
        call.deadline = Float::INFINITY
      end
      if flags & FINAL != 0
        @calls.delete(id)
        release(call)
      end
      true
    end

    # The host hears of the first worker: that has no user code yet, and is what a call
    # waits for.
    def told_ready(frame)
      return if @ready

      @ready = true
      @out << frame
    end

    def told_bound(frame)
      return if @bound

      @bound = true
      @out << frame
    end

    def release(call)
      call.child.call = nil
      @idle << call.child
    end

    # A worker is gone: its call fails.
    def lost(child, how)
      return unless @children.key?(child.socket)

      quit(1) if @bind.empty? # this machine cannot run workers
      quit_like(child, how) unless @bound # the code ends whoever loads it
      kill(child)
      error = child.error || "Failed to load module: #{how}."
      return unless (call = child.call)

      if error.empty?
        fail_call(call, "The function did not answer: #{how}.", { s: 500 })
      else
        fail_call(call, error, { s: 503 })
      end
    end

    # Ends everything as a process has ended.
    def quit_like(child, how)
      s = child.status
      STDERR.syswrite("#{how}\n") unless s&.exited?
      quit(s.nil? ? 1 : s.exitstatus || 128 + s.termsig)
    end

    def fail_call(call, why, head)
      @out << FnKit.frame(call.id, LOG, 0, "\2#{why}\n") if call.logging
      @out << (call.answered ? FnKit.frame(call.id, RESET, FINAL, why) : FnKit.frame(call.id, HEAD, FINAL, FnKit.head(head)))
      @calls.delete(call.id)
    end

    # How a process that closed its socket ended; it may need a moment.
    def ending(child)
      20.times do
        if (s = child.status)
          return "its process ended with #{s.signaled? ? "signal #{s.termsig}" : "exit status #{s.exitstatus}"}"
        end
        sleep(0.001)
      end
      "its process closed the channel"
    end

    def spawn
      mine, theirs = UNIXSocket.pair
      pid = fork do
        @channel.close
        mine.close
        @children.each_key(&:close)
        Worker.new(theirs).run
      end
      theirs.close
      @children[mine] = Child.new(pid, mine, @bind)
    end

    def kill(child)
      child.kill
      @dead << child unless child.status
      @children.delete(child.socket)
      @idle.delete(child)
      child.socket.close
    end
  end

  # ---- what user code sees ----

  class Context
    attr_reader :req, :res

    def initialize(call)
      @call = call
      @req = Request.new(call)
      @res = Response.new
    end

    def log(*args)
      @call.log(1, args.map { |a| FnKit.show(a) }.join(" "))
    end

    def error(*args)
      @call.log(2, args.map { |a| FnKit.show(a) }.join(" "))
    end

    def inspect
      "#<Context>"
    end
  end

  class Request
    attr_reader :body_binary, :headers, :method, :scheme, :host, :port, :path, :query_string, :query, :url

    def initialize(call)
      @body_binary = call.body
      @method = call.head["m"]
      @headers = (call.head["h"] || {}).reject { |name, _| name.start_with?("x-open-runtimes-") }.merge(Worker.enforced)
      @path, _, @query_string = call.head["p"].partition("?")
      @query = parse(@query_string)
      address(call.head["p"])
    end

    def body_text
      @body_text ||= @body_binary.dup.force_encoding(Encoding::UTF_8)
    end
    alias body_raw body_text

    def body_json
      JSON.parse(body_text)
    end

    def body
      return body_text unless (@headers["content-type"] || "").downcase.start_with?("application/json")

      @body_binary.empty? ? {} : body_json
    end

    private

    def parse(text)
      text.split("&").each_with_object({}) do |part, query|
        key, value = part.split("=", 2)
        query[key] = value unless key.nil? || key.empty?
      end
    end

    def address(whole)
      @scheme = @headers["x-forwarded-proto"].to_s
      @scheme = "http" if @scheme.empty?
      standard = @scheme == "https" ? 443 : 80
      @host, port = (@headers["host"] || "").match(/\A(.*?)(?::(\d+))?\z/m).captures
      @port = port ? port.to_i : standard
      @url = "#{@scheme}://#{@host}#{":#{@port}" if @port != standard}#{@query_string.empty? ? @path : whole}"
    end
  end

  class Response
    def send(body, status_code = 200, headers = {})
      body = body.to_s unless FnKit.stream?(body)
      { "body" => body, "statusCode" => status_code, "headers" => headers }
    end

    def text(body, status_code = 200, headers = {})
      { "body" => body.to_s, "statusCode" => status_code, "headers" => headers }
    end

    def binary(bytes, status_code = 200, headers = {})
      { "body" => bytes, "statusCode" => status_code, "headers" => headers }
    end

    def json(obj, status_code = 200, headers = {})
      kept = headers.reject { |name, _| name.to_s.downcase == "content-type" }
      { "body" => JSON.generate(obj), "statusCode" => status_code, "headers" => kept.merge("content-type" => "application/json") }
    end

    def empty
      { "body" => "", "statusCode" => 204, "headers" => {} }
    end

    def redirect(url, status_code = 301, headers = {})
      { "body" => "", "statusCode" => status_code, "headers" => headers.merge("location" => url) }
    end
  end

  # Whether a body is given piece by piece.
  def stream?(body)
    body.respond_to?(:each) && !body.is_a?(Array) && !body.is_a?(Hash)
  end

  def bytes(body)
    case body
    when nil then "".b
    when String, Symbol, Numeric, true, false then body.to_s.b
    else raise TypeError, "response body must be text or an enumerator of texts, not #{body.class}"
    end
  end

  def fields(headers)
    all = []
    headers.each do |name, value|
      name = name.to_s.downcase
      next if name.start_with?("x-open-runtimes-")

      Array(value).each { |v| all << [name, name == "content-type" ? content_type(v.to_s) : v.to_s] }
    end
    all << ["content-type", "text/plain; charset=utf-8"] if all.none? { |name, _| name == "content-type" }
    all
  end

  def content_type(value)
    lower = value.downcase
    lower.start_with?("multipart/") || lower.include?("charset=") ? value : "#{lower}; charset=utf-8"
  end

  # ---- the worker ----

  # A call as its worker sees it.
  class Call
    attr_reader :id, :head, :body
    attr_accessor :received, :credit

    def initialize(worker, id, head, body)
      @worker, @id, @head, @body = worker, id, head, body
      @logging = head["l"] == 1
      @received = 0 # no credit was given for these bytes yet
      @credit = CREDIT
      @native = false # something was printed
      @partial = +""
    end

    def log(stream, text)
      return unless @logging

      if text.length > LINE_LIMIT
        text = "#{text[0, LINE_LIMIT]}... Log truncated due to size limit (#{LINE_LIMIT} characters)"
      end
      @worker.send_frame(@id, LOG, 0, stream.chr << text.b << "\n")
    end

    def printed(text)
      return if !@logging || text.empty?

      unless @native
        @native = true
        @worker.send_frame(@id, LOG, 0, "\1#{NATIVE}")
      end
      *lines, rest = (@partial + text).split("\n", -1)
      # No more of a line is kept than is shown of it.
      @partial = rest[0, LINE_LIMIT + 1]
      lines.each { |line| log(1, line) }
    end

    def fail_with(error)
      log(2, FnKit.error_text(error))
      finish(HEAD, FnKit.head({ s: 500 }))
    end

    def answer(result)
      if result.nil?
        log(2, "Return statement missing. return context.res.empty() if no response is expected.")
        return finish(HEAD, FnKit.head({ s: 500 }))
      end
      raise TypeError, "main must return a response, not #{result.class}" unless result.is_a?(Hash)

      body, status, headers = %w[body statusCode headers].map { |k| result.fetch(k) { result[k.to_sym] } }
      status = Integer(status || 200)
      raise RangeError, "invalid status code" if status.abs > STATUS_LIMIT

      head = FnKit.head({ s: status, h: FnKit.fields(headers || {}) })
      unless FnKit.stream?(body)
        body = FnKit.bytes(body)
        return finish(HEAD, head << body) if body.bytesize <= PIECE

        body = [body]
      end
      @worker.send_frame(@id, HEAD, 0, head)
      stream(body)
    end

    private

    def finish(type, payload = "")
      log(1, @partial) unless @partial.empty?
      @partial = +""
      @worker.send_frame(@id, type, FINAL, payload)
    end

    def stream(pieces)
      begin
        pieces.each { |piece| push(FnKit.bytes(piece)) }
      rescue Exception => e
        log(2, FnKit.error_text(e))
        return finish(RESET, "stream failed: #{e.message}".byteslice(0, 512))
      end
      finish(DATA)
    end

    def push(piece)
      at = 0
      while at < piece.bytesize
        @worker.step while @credit <= 0
        n = [PIECE, @credit, piece.bytesize - at].min
        @credit -= n
        @worker.send_frame(@id, DATA, 0, piece.byteslice(at, n))
        at += n
      end
    end
  end

  # Takes the place of $stdout and $stderr.
  class Capture < StringIO
    def initialize(worker, real)
      super()
      @worker, @real = worker, real
    end

    def write(*texts)
      call = @worker.current
      return @real.write(*texts) unless call

      texts = texts.map(&:to_s)
      call.printed(texts.map { |t| FnKit.utf8(t) }.join)
      texts.sum(&:bytesize)
    end
    alias syswrite write
    alias write_nonblock write

    def putc(char)
      write(char.is_a?(Integer) ? (char & 0xff).chr : char.to_s[0])
      char
    end

    def fileno
      @real.fileno
    end
  end

  class LoadFailure < StandardError
  end

  class Worker
    class << self
      attr_accessor :enforced # headers
    end
    self.enforced = {}

    attr_reader :current # the call whose code runs, or is to

    def initialize(channel)
      @pid = Process.pid # processes that user code forks have no business on the channel
      @channel = channel
      @channel.sync = true
      @frames = Frames.new
      @incoming = []
    end

    def run
      send_frame(0, READY, 0, JSON.generate("protocol" => 1, "version" => RUBY_VERSION))
      loop { step }
    rescue SystemCallError
      exit!(0)
    end

    def send_frame(id, type, flags, payload)
      @channel.write(FnKit.frame(id, type, flags, payload)) if Process.pid == @pid
    rescue SystemCallError
      exit!(0)
    end

    # Handles one frame.
    def step
      while @incoming.empty?
        data = begin
          @channel.readpartial(CREDIT)
        rescue EOFError
          exit!(0)
        end
        @incoming = @frames.cut(data)
      end
      id, type, flags, frame = @incoming.shift
      return bind(JSON.parse(frame.byteslice(10..))) if type == BIND
      return accept(id, flags, frame) if type == CALL
      return if @current.nil? || @current.id != id # late

      case type
      when WINDOW then @current.credit += frame.byteslice(10, 4).unpack1("V")
      when RESET then @current = nil
      when DATA then receive(@current, frame.byteslice(10..), flags)
      end
    end

    private

    def accept(id, flags, frame)
      length = frame.byteslice(10, 2).unpack1("v")
      @current = Call.new(self, id, JSON.parse(frame.byteslice(12, length)), frame.byteslice(12 + length..))
      invoke if flags & FINAL != 0
    end

    def receive(call, data, flags)
      if call.body.bytesize + data.bytesize > BODY_LIMIT
        @current = nil
        return send_frame(call.id, RESET, FINAL, "the request body is too large")
      end
      call.body << data
      call.received += data.bytesize
      if flags & FINAL != 0
        invoke
      elsif call.received >= CREDIT / 2
        send_frame(call.id, WINDOW, 0, [call.received].pack("V"))
        call.received = 0
      end
    end

    def invoke
      call = @current
      begin
        call.answer(TOPLEVEL_BINDING.receiver.__send__(:main, Context.new(call)))
      rescue Exception => e
        exit!(e.is_a?(SystemExit) ? e.status : 1) unless Process.pid == @pid
        call.fail_with(e)
      end
      exit!(0) unless Process.pid == @pid
      @current = nil
    end

    def bind(bind)
      error = begin
        prepare(bind)
        load_function(bind["root"], bind["entrypoint"])
        ""
      rescue LoadFailure => e
        e.message
      end
      send_frame(0, BOUND, 0, JSON.generate("error" => error.scrub))
      exit!(0) unless error.empty? # a fresh process tries again
      $stdout = Capture.new(self, STDOUT)
      $stderr = Capture.new(self, STDERR)
    end

    def prepare(bind)
      ENV.replace(bind["env"])
      Gem.clear_paths if defined?(Gem)
      Worker.enforced = enforced_headers(bind["env"]["OPEN_RUNTIMES_HEADERS"])
      Dir.chdir(bind["root"])
    rescue SystemCallError => e
      raise LoadFailure, e.message
    end

    def enforced_headers(text)
      headers = JSON.parse(text || "{}")
      return {} unless headers.is_a?(Hash)

      headers.to_h { |name, value| [name.downcase, value.is_a?(String) ? value : JSON.generate(value)] }
    rescue JSON::ParserError
      {}
    end

    def load_function(root, entrypoint)
      file = File.join(root, entrypoint)
      raise LoadFailure, "Failed to load entrypoint, file #{entrypoint} does not exist." unless inside?(root, file)

      load_bundle(root)
      load(file)
      return if TOPLEVEL_BINDING.receiver.respond_to?(:main, true)

      raise LoadFailure, "Function signature invalid. Did you forget to export a 'main' function?"
    rescue LoadFailure
      raise
    rescue SystemExit => e
      [STDOUT, STDERR].each(&:flush)
      exit!(e.status)
    rescue SyntaxError => e
      raise LoadFailure, "Syntax error in #{entrypoint}: #{FnKit.utf8(e.message)}"
    rescue LoadError => e
      raise LoadFailure, "Failed to load file: #{e.message}"
    rescue Exception => e
      raise LoadFailure, "Failed to load module: #{FnKit.error_text(e)}"
    end

    def inside?(root, file)
      File.file?(file) && File.realpath(file).start_with?(File.join(File.realpath(root), ""))
    end

    def load_bundle(root)
      gemfile = File.join(root, "Gemfile")
      return unless File.file?(gemfile)

      ENV["BUNDLE_GEMFILE"] ||= gemfile
      bundle = File.join(root, "vendor", "bundle")
      ENV["BUNDLE_PATH"] ||= bundle if File.directory?(bundle)
      require "bundler"
      Bundler::Definition.no_lock = true if Bundler::Definition.respond_to?(:no_lock=) # the code may be read-only
      Bundler.setup
    end
  end
end

Encoding.default_external = Encoding::UTF_8
STDOUT.sync = true
Process.warmup if Process.respond_to?(:warmup)
FnKit::Master.new.run
